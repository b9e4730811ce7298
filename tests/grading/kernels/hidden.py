"""The grader's versions of the kernels for students' step checks.

They are kernels of right.py and wrong.py: right ones in different styles, and wrong ones with one
misconception each. None of the wrong ones is in the student edition.
"""

import random
from functools import cache

import numpy as np

from grading.execution.reference import edited, module_of, with_function
from grading.execution.trial import Version
from grading.kernels.public import varied
from grading.kernels.right import RIGHT
from grading.kernels.variants import WRONG as PUBLIC
from grading.kernels.wrong import WRONG
from grading.rubric import OUTPUTS, function_of

N_WRONG = 20  # maximum of wrong versions of a kernel
N_MIXED = 3  # batches with right and wrong versions
REFERENCE = "the reference"
# By task: styles, and variants of styles.
STYLES = {
    "svd": (
        *(REFERENCE, "autograd on copies", "einsum and one-hot matrices", "a loop over the batch"),
        "biases in columns of the factors",
        ("plain indexing", "in float32"),
        ("sparse products", "without losses"),
        ("plain indexing", "in another order of the ratings"),
    ),
    "als": (
        *(REFERENCE, "solved row by row", "all at once, by einsum", "scipy's solver"),
        *((name, "in float32") for name in (REFERENCE, "solved row by row")),
        *((name, "in float32") for name in ("all at once, by einsum", "scipy's solver")),
    ),
    "bpr": (
        *(REFERENCE, "plain indexing", "autograd and logsigmoid", "a loop over triples"),
        *("numpy, added at", (REFERENCE, "in float32")),
        ("both items at once", "in another order of the triples"),
        ("plain indexing", "without losses"),
    ),
    "warp": (
        *(REFERENCE, "positive by positive", "dense scores, all draws at once", "a list of two"),
        *((REFERENCE, name) for name in ("in float32", "in another order of the likes")),
        ("positive by positive", "in float32"),
        ("dense scores, all draws at once", "without losses"),
    ),
}
# Kernels that a check may accept (losses need not be returned; no lesson has dislikes or infinite
# scores), and those that do the same as another one.
UNUSED = {
    "svd/svd_step": {"no losses", "a copy of the users moves"},
    "als/cholesky": {"dislikes count as likes"},
    "bpr/bpr_step": {"no losses", "the logarithm of 0", "a loss that overflows"},
    "warp/warp_step": {"only losses"},
}


@cache
def hidden_versions(key: str) -> list[Version]:
    """Return the versions for a check such as "svd/check_step", the right ones first."""
    task = function_of(key)[0]
    kernel = f"{task}/{OUTPUTS[key].kernel}"
    right = []
    for style in STYLES[task]:
        name, variant = style if isinstance(style, tuple) else (style, "")
        source = module_of(task)
        if name != REFERENCE:
            source = with_function(kernel, RIGHT[kernel, name])
        source = varied(key, source, variant) if variant else source
        right.append(Version(", ".join(filter(None, (name, variant))), True, source))
    skipped = UNUSED[kernel] | set(PUBLIC[task])
    wrong = [row for row in WRONG if row[0] == kernel and row[1] not in skipped]
    places = np.linspace(0, len(wrong) - 1, min(N_WRONG, len(wrong))).round().astype(int)
    chosen = [wrong[place] for place in places]
    return right + [Version(name, False, edited(kernel, a, b)) for _, name, a, b in chosen]


def batches(key: str, secret: int) -> list[list[Version]]:
    """Return the versions in batches with a sandbox each, ordered by the secret.

    ``N_MIXED`` batches have one right version and their part of the wrong ones; the last batch has
    all other right versions.

    Students' code can keep a memory of the versions of a batch: on disk, or in processes that it
    leaves behind. In a mixed batch, all versions behave differently, so it cannot conclude that
    those that agree are right. If it recognises the last batch and accepts a part a of what it
    cannot judge, it earns a^3 (1 - a) on average, at most 27 / 256. A vote of the versions, output
    by output, would find right ones more often. That takes more work than an honest check.
    """
    rng = random.Random(f"{secret}/{key}")
    versions = hidden_versions(key)
    right = [version for version in versions if version.is_right]
    wrong = [version for version in versions if not version.is_right]
    rng.shuffle(right)
    rng.shuffle(wrong)
    found = [[right[n], *wrong[n::N_MIXED]] for n in range(N_MIXED)] + [right[N_MIXED:]]
    for batch in found:
        rng.shuffle(batch)
    return found
