"""What runs inside the sandbox beside the harness: a whole notebook, in a kernel that may not end.

    python -m grading.execution.run_notebook DATASET

In the folder: notebook.ipynb, and what its cells import. Out comes executed.ipynb. This process
needs no library that computes, and imports none.
"""

import resource
import sys
from pathlib import Path

import nbformat
from fresh_kernel import execute

KERNEL_SECONDS = 800  # of the processor: then the kernel ends, and what came out so far is kept


def main() -> None:
    """All cells, whatever they do."""
    resource.setrlimit(resource.RLIMIT_CPU, (KERNEL_SECONDS, KERNEL_SECONDS))
    file = Path("notebook.ipynb").resolve()
    notebook, _ = execute(file, sys.argv[1], go_on=True, cell_seconds=None)
    nbformat.write(notebook, "executed.ipynb")


if __name__ == "__main__":
    main()
