"""The versions of the kernels on which the student edition tries step checks.

They are variants of the student's own kernel, so the edition contains no answer.
"""

from grading.execution.trial import Version
from grading.kernels.variants import RIGHT, WRONG
from grading.rubric import OUTPUTS, function_of


def varied(key: str, source: str, name: str) -> str:
    """Return a module that defines a variant of its kernel; ``key``: of the check."""
    kernel, task = OUTPUTS[key].kernel, function_of(key)[0]
    imports = "from functools import partial\n\nfrom grading.kernels.variants import VARIANTS\n"
    return f"{source}\n\n{imports}\n{kernel} = partial(VARIANTS[{task!r}][{name!r}], {kernel})\n"


def public_versions(key: str, source: str) -> list[Version]:
    """Return the versions of the student edition; ``source``: the student's module."""
    task = function_of(key)[0]
    variants = [(name, True) for name in RIGHT[task]] + [(name, False) for name in WRONG[task]]
    others = [Version(name, right, varied(key, source, name)) for name, right in variants]
    return [Version("your own", True, source), *others]
