"""Group submissions with identical functions, and export all answers for other tools.

This module parses no source. Dolos, copydetect and JPlag find rewritten copies in the exported
files.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from grading.plagiarism.normal_form import NormalForm

NormalForms = Mapping[str, Sequence[NormalForm]]  # by answer


@dataclass(frozen=True)
class Place:
    """A function in a submission."""

    submission: str
    answer: str  # key
    form: NormalForm


@dataclass(frozen=True)
class Group:
    """Submissions whose functions are the same except for names, comments and layout."""

    submissions: tuple[str, ...]
    functions: tuple[tuple[Place, ...], ...]  # for each function, its places

    @property
    def names(self) -> list[str]:
        """The functions' names in the first submission, such as "svd: svd_step"."""
        first = [places[0] for places in self.functions]
        return [f"{place.answer.partition('/')[0]}: {place.form.name}" for place in first]


def groups(forms: Mapping[str, NormalForms]) -> list[Group]:
    """Return the groups of submissions with identical functions, the largest overlap first.

    Parameters
    ----------
    forms : mapping
        Normal forms by submission and answer.
    """
    holders: dict[str, dict[str, Place]] = defaultdict(dict)
    for submission, answers in sorted(forms.items()):
        for answer, functions in answers.items():
            for form in functions:
                holders[form.digest].setdefault(submission, Place(submission, answer, form))
    shared: dict[tuple[str, ...], list[tuple[Place, ...]]] = defaultdict(list)
    for by_submission in holders.values():
        if len(by_submission) > 1:
            shared[tuple(by_submission)].append(tuple(by_submission.values()))
    found = [Group(submissions, tuple(places)) for submissions, places in shared.items()]
    return sorted(found, key=lambda group: (-len(group.functions), group.submissions))


def as_files(answers: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return one Python file with all answers of each submission, by file name."""
    return {
        f"{submission}.py": "\n\n".join(f"# {key}\n{text}" for key, text in sorted(texts.items()))
        for submission, texts in sorted(answers.items())
    }
