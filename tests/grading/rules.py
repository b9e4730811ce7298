"""What is taken of a submission: listed functions and the cells tagged "solution".

An answer computes. One that reaches for more is refused unread, since it could change what the
checks and the grader use. A list of names can be outwitted; whoever does it meets the sandbox, and
results that are judged outside of it.
"""

import ast
import builtins
import sys

import nbformat

MODULES = {"bisect", "collections", "copy", "dataclasses", "functools", "heapq", "itertools"}
MODULES |= {"math", "matplotlib", "mflib", "numpy", "pandas", "random", "scipy", "statistics"}
MODULES |= {"time", "torch", "typing", "warnings"}
CALLS = {"breakpoint", "compile", "delattr", "eval", "exec", "exit", "get_ipython", "getattr"}
CALLS |= {"globals", "locals", "open", "quit", "setattr", "type", "vars"}
CALLS |= {"__import__", "__builtins__"}
# Attributes through which a module of the system, or a file, is reached.
HIDDEN = set(sys.stdlib_module_names) - MODULES - {"array", "chunk", "select", "trace"}
HIDDEN |= {"Path", "eval", "fromfile", "genfromtxt", "load", "loadtxt", "memmap", "modules"}
HIDDEN |= {"query", "runstring", "save", "savetxt", "savez", "savez_compressed", "tofile"}
ASSIGNED = {"data", "grad", "requires_grad"}  # attributes of tensors
# What the answers in notebooks are compared with.
COMPARED = ("mflib.als", "mflib.bpr", "mflib.svd", "mflib.warp")
UNPARSED = (SyntaxError, ValueError, RecursionError, MemoryError)


def refused(answer: ast.AST, taken: dict[str, str]) -> str | None:
    """Why an answer is not executed, or None.

    ``taken``: names that it must not bind and where they come from.
    """
    for node in ast.walk(answer):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None)
            whole = [f"{module}.{alias.name}" if module else alias.name for alias in node.names]
            parts = {name.partition(".")[0] for name in whole} - MODULES
            parts |= {part for name in whole for part in name.split(".")[1:]} & HIDDEN
            if parts:
                return f"imports {sorted(parts)}, of which an answer has no use"
        elif isinstance(node, ast.ClassDef | ast.Global):
            return f"uses {type(node).__name__}: an answer is a function of its arguments"
        elif isinstance(node, ast.Attribute):
            if node.attr.startswith("__") or node.attr in HIDDEN:
                return f"inspects an object by its attribute {node.attr!r}"
            if not isinstance(node.ctx, ast.Load) and node.attr not in ASSIGNED:
                return f"changes an object by its attribute {node.attr!r}"
        elif isinstance(node, ast.Name) and node.id in CALLS:
            return f"uses {node.id}, of which an answer has no use"
    origins = binds(answer)
    bound = sorted(name for name in origins if taken.get(name, origins[name]) != origins[name])
    if bound:
        return f"binds {bound}, which the checks use"
    return None


def binds(node: ast.AST) -> dict[str, str]:
    """The names that code binds outside of its functions, and for what is imported, from where."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return {getattr(node, "name", ""): ""}
    if isinstance(node, ast.Import | ast.ImportFrom):
        prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        return {
            alias.asname or alias.name.partition(".")[0]: prefix
            + (alias.name if alias.asname or prefix else "")
            for alias in node.names
        }
    found = {}
    if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        found[node.id] = ""
    names = (getattr(node, field, None) for field in ("name", "rest"))
    found |= {name: "" for name in names if isinstance(name, str)}
    for child in ast.iter_child_nodes(node):
        found |= binds(child)
    return found


def taken(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """What the answers in a notebook must not bind.

    That is what it imports, and the builtins that its other cells use.
    """
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    cells = [cell for cell in cells if "solution" not in cell.metadata.get("tags", [])]
    trees = [ast.parse(cell.source) for cell in cells]
    used = {node.id for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Name)}
    imported = binds(trees[[cell.id for cell in cells].index("imports")])
    return dict.fromkeys(used & set(dir(builtins)), "builtins") | imported


def refused_source(source: str, taken: dict[str, str]) -> str | None:
    """``refused`` for the source of a cell.

    It must not call the kernel either: equality would say nothing.
    """
    try:
        answer = ast.parse(source)
        origins = {"mflib": "mflib.svd"} | taken  # by whatever attribute of the package
        for node in ast.walk(answer):
            origins |= binds(node) if isinstance(node, ast.ImportFrom) else {}
        used = {node.id for node in ast.walk(answer) if isinstance(node, ast.Name)}
        lower = {name: origins.get(name, "").lower() for name in used}
        compared = sorted(name for name in used if lower[name].startswith(COMPARED))
        return f"uses {compared}, with which it is compared" if compared else refused(answer, taken)
    except UNPARSED as error:
        return f"cannot be parsed: {error}"


def transplant(reference: str, submitted: str, names: list[str]) -> tuple[str, list[str]]:
    """The module ``reference`` with the submitted functions ``names``, and what was not taken.

    Functions, constants and imports that the student has added come along.
    """
    submitted = submitted.replace("\r\n", "\n").replace("\r", "\n")  # what ends a line for Python
    lines, trouble, added = reference.split("\n")[:-1], [], []
    whole = ast.parse(reference)
    ours = {node.name: node for node in whole.body if isinstance(node, ast.FunctionDef)}
    own, same = binds(whole), {ast.dump(node) for node in whole.body}
    try:
        theirs = ast.parse(submitted)
        for node in theirs.body:
            imports = isinstance(node, ast.Import | ast.ImportFrom)
            new = isinstance(node, ast.FunctionDef | ast.Assign) and not set(binds(node)) & set(own)
            if ast.dump(node) not in same and (imports or new):
                why = refused(node, own)
                trouble += [f"line {node.lineno} {why}"] if why else []
                added += [] if why else [ast.unparse(node)]
        functions = {node.name: node for node in theirs.body if isinstance(node, ast.FunctionDef)}
        reasons = {name: refused(node, {}) for name, node in functions.items() if name in names}
    except UNPARSED as error:
        functions, trouble, added = {}, [f"the module cannot be parsed: {error}"], []
    for name in sorted(names, key=lambda name: -ours[name].lineno):
        node = functions.get(name)
        if node is None:
            body = [
                f"def {name}(*arguments):",
                '    raise NotImplementedError("the function is missing")',
            ]
        elif why := reasons[name]:
            trouble.append(f"{name}: {why}")
            body = [f"def {name}(*arguments):", f"    raise PermissionError({why!r})"]
        else:
            if ast.dump(node.args) != ast.dump(ours[name].args):
                trouble.append(f"{name}: the arguments have been changed")
            body = submitted.split("\n")[node.lineno - 1 : node.end_lineno]
        lines[ours[name].lineno - 1 : ours[name].end_lineno] = body
    first = min(node.lineno for node in ours.values()) - 1
    lines[first:first] = [line for text in added for line in (*text.split("\n"), "", "")]
    return "\n".join(lines) + "\n", trouble


def answered(
    reference: nbformat.NotebookNode, submitted: str | None
) -> tuple[nbformat.NotebookNode, dict[str, nbformat.NotebookNode], list[str]]:
    """The notebook ``reference`` with the student's answers.

    Then all cells of the student by id, and what was not taken.
    """
    cells, trouble = {}, []
    if submitted is not None:
        try:
            cells = _cells(nbformat.reads(submitted, as_version=4), reference)
        except Exception as error:  # nbformat raises many kinds on a corrupt notebook
            trouble.append(f"the notebook cannot be read: {type(error).__name__}")
    names = taken(reference)
    for cell in reference.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            if "solution" in cell.metadata.get("tags", []):
                if cell.id not in cells:
                    trouble.append(f"the cell {cell.id} is missing")
                cell.source = (
                    cells[cell.id].source
                    if cell.id in cells
                    else 'raise NotImplementedError("missing")'
                )
                if why := refused_source(cell.source, names):
                    trouble.append(f"the cell {cell.id} {why}")
                    cell.source = f"raise PermissionError({why!r})"
    order = [cell.id for cell in reference.cells if cell.cell_type == "code" and cell.id in cells]
    if order != [cell for cell in cells if cell in order]:
        trouble.append(
            "the cells stand in another order than they were handed out in; "
            "they are executed in that one"
        )
    return reference, cells, trouble


def _cells(notebook: dict, reference: nbformat.NotebookNode) -> dict[str, nbformat.NotebookNode]:
    """The readable code cells by id.

    Where a program has dropped the ids, they are known by the functions they define.
    """
    found = [cell for cell in notebook["cells"] if cell.get("cell_type") == "code"]
    found = [cell for cell in found if isinstance(cell.get("source"), str)]
    if any(isinstance(cell.get("id"), str) for cell in found):
        return {cell["id"]: cell for cell in found if isinstance(cell.get("id"), str)}
    known = {
        _functions(cell.source): cell.id
        for cell in reference.cells
        if "solution" in cell.metadata.get("tags", [])
    }
    return {known[names]: cell for cell in found if (names := _functions(cell["source"])) in known}


def _functions(source: str) -> tuple[str, ...]:
    try:
        body = ast.parse(source).body
        return tuple(node.name for node in body if isinstance(node, ast.FunctionDef))
    except UNPARSED:
        return ()
