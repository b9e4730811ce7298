"""What is public of each answer, the hand-out and the reference: what else is known of an answer.

These look at what students wrote, so they are called where memory and time are bounded.
"""

from functools import cache
from pathlib import Path

from grading.execution.reference import answers
from grading.paths import ROOT
from grading.plagiarism.fingerprints import all_hashes, fingerprints, is_reference, own_part
from grading.rubric import RUBRIC
from grading.student.edition import blank, blank_cell


@cache
def public(key: str) -> tuple[str, str, frozenset[int]]:
    """The reference and the hand-out of "svd/svd.py" or "svd/ndcg", and the hashes of both."""
    task, _, name = key.partition("/")
    if name.endswith(".py"):
        reference = (ROOT / "mflib" / Path(name).name).read_text(encoding="utf-8")
        handed_out = blank(reference, RUBRIC[task]["functions"])
    else:
        reference = answers()[key]
        handed_out = blank_cell(reference)
    return reference, handed_out, frozenset(all_hashes((reference, handed_out)))


def own(key: str, source: str) -> str:
    """What a student added: of a module, the statements that were not handed out."""
    return own_part(source, public(key)[1]) if key.endswith(".py") else source


def prints(key: str, source: str) -> list[list[int]]:
    """The fingerprints of an answer, less what is public."""
    return fingerprints(source, public(key)[2])


def published(key: str, source: str) -> list[str]:
    """The functions in it that are the reference's, names and layout aside."""
    task, _, name = key.partition("/")
    names = RUBRIC[task]["functions"] if name.endswith(".py") else [name]
    return [one for one in names if is_reference(source, public(key)[0], one)]


@cache
def warm_up() -> None:
    """Look at all that is public, once, before processes are forked."""
    for task, entry in RUBRIC.items():
        public(f"{task}/{entry['module']}.py")
    for key in answers():
        public(key)


OF_ANSWERS = {"fingerprints": prints, "published": published}
