"""Compute fingerprints of answers, and recognise the published reference.

Fingerprints by winnowing (Schleimer, Wilkerson, Aiken: Winnowing, SIGMOD 2003): of each window of
hashes of token sequences the smallest is kept, so that of two sources any common passage of
``GRAM + WINDOW - 1`` tokens is found, and none below ``GRAM``. Names, numbers, texts, comments and
layout do not count. Untrusted source is parsed here: call this where memory and time are limited.
"""

import ast
import builtins
import hashlib
import io
import keyword
import tokenize
from collections.abc import Iterable

GRAM = 12  # tokens; shorter passages are chance
WINDOW = 6  # hashes of which one is kept
MOST_SOURCE = 20_000  # characters of an answer that are looked at
MOST_PRINTS = 400  # of an answer
FEWEST_NODES = 50  # of a tree; a smaller answer is the reference by chance
UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)
LAYOUT = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}
Prints = list[list[int]]  # each: the hash, the first and the last line


def tokens(source: str) -> list[tuple[str, int]]:
    """Return the tokens that count, with their lines, up to the first that cannot be read."""
    found: list[tuple[str, int]] = []
    begins = True  # a statement: a text that is one is a docstring
    try:
        for token in tokenize.generate_tokens(io.StringIO(source[:MOST_SOURCE]).readline):
            kind, text, line = token.type, token.string, token.start[0]
            if kind in LAYOUT:
                begins = begins or kind in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
                continue
            if kind == tokenize.STRING:
                found += [] if begins else [("s", line)]
            elif kind == tokenize.NUMBER:
                found.append(("0", line))
            elif kind == tokenize.NAME and not keyword.iskeyword(text):
                attribute = bool(found) and found[-1][0] == "."
                found.append((text if attribute else "v", line))
            elif kind in (tokenize.NAME, tokenize.OP):
                found.append((text, line))
            begins = False
    except (tokenize.TokenError, *UNPARSED):
        pass  # what came before the fault counts
    return found


def fingerprints(source: str, without: Iterable[int] = ()) -> Prints:
    """Return the kept hashes with their lines, ascending, except those in ``without``."""
    words = tokens(source)
    grams = [words[n : n + GRAM] for n in range(len(words) - GRAM + 1)]
    hashes = [_hash(" ".join(text for text, _ in gram)) for gram in grams]
    kept: dict[int, list[int]] = {}
    public = set(without)
    for start in range(max(1, len(hashes) - WINDOW + 1) if hashes else 0):
        window = hashes[start : start + WINDOW]
        smallest = min(window)
        place = start + max(n for n, value in enumerate(window) if value == smallest)
        if smallest not in public and smallest not in kept:
            kept[smallest] = [smallest, grams[place][0][1], grams[place][-1][1]]
    return sorted(kept.values())[:MOST_PRINTS]


def all_hashes(sources: Iterable[str]) -> set[int]:
    """Return every hash of public sources, not only the kept ones."""
    found: set[int] = set()
    for source in sources:
        words = [text for text, _ in tokens(source)]
        found |= {_hash(" ".join(words[n : n + GRAM])) for n in range(len(words) - GRAM + 1)}
    return found


def _hash(text: str) -> int:
    """Return 48 bits, the same in every process; JSON keeps them exactly."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest())


def own_part(source: str, handed_out: str) -> str:
    """Return the statements of a module that were not handed out; all of it if unreadable."""
    source = source[: 10 * MOST_SOURCE]
    try:
        mine, given = ast.parse(source), ast.parse(handed_out)
    except UNPARSED:
        return source[:MOST_SOURCE]
    known, lines = {ast.dump(node) for node in given.body}, source.splitlines()
    keep: dict[int, bool] = {}  # by line: whether a gap comes before it
    for node in mine.body:
        if ast.dump(node) not in known:
            first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
            for line in range(first, (node.end_lineno or first) + 1):
                keep.setdefault(line, line == first)  # once, however many statements are on it
    parts = (f"\n{lines[n - 1]}" if gap else lines[n - 1] for n, gap in sorted(keep.items()))
    return "\n".join(parts).removeprefix("\n")[:MOST_SOURCE]


def is_reference(source: str, reference: str, name: str) -> bool:
    """Return whether a function equals the reference's except for names and layout.

    There are few right ways to write a small function, so these never count.
    """
    mine, theirs = (_function(text, name) for text in (source[: 10 * MOST_SOURCE], reference))
    if mine is None or theirs is None or sum(1 for _ in ast.walk(theirs)) < FEWEST_NODES:
        return False
    try:
        return _canonical(mine) == _canonical(theirs)
    except RecursionError:  # no reference is as deep as that
        return False


def _function(source: str, name: str) -> ast.FunctionDef | None:
    try:
        body = ast.parse(source).body
    except UNPARSED:
        return None
    same = [n for n in body if isinstance(n, ast.FunctionDef) and n.name == name]
    return same[-1] if same else None


def _canonical(function: ast.FunctionDef) -> str:
    """Return the tree as text: names numbered, without docstrings, annotations and decorators."""
    function.decorator_list = []
    return ast.dump(_Renamed().visit(function))


class _Renamed(ast.NodeTransformer):
    """Replaces names by numbers; builtins, attributes and keywords of calls keep theirs."""

    def __init__(self) -> None:
        self.numbers: dict[str, str] = {}

    def number(self, name: str) -> str:
        if hasattr(builtins, name):
            return name
        return self.numbers.setdefault(name, f"v{len(self.numbers)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.number(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.number(node.arg))

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        node.name, node.returns, node.type_comment = self.number(node.name), None, None
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
        self.generic_visit(node)
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return self.visit(ast.Assign([node.target], node.value))
