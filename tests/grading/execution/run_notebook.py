"""Execute a whole notebook inside the sandbox, in a kernel with a limit of CPU time.

    python -m grading.execution.run_notebook DATASET

The current folder contains notebook.ipynb and its imports; executed.ipynb is written there.
"""

import resource
import sys
from pathlib import Path

import nbformat
from fresh_kernel import execute

KERNEL_SECONDS = 800  # CPU time; after that the kernel ends and earlier outputs are kept


def main() -> None:
    """Execute all cells, even after a failure."""
    resource.setrlimit(resource.RLIMIT_CPU, (KERNEL_SECONDS, KERNEL_SECONDS))
    file = Path("notebook.ipynb").resolve()
    notebook, _ = execute(file, sys.argv[1], go_on=True, cell_seconds=None)
    nbformat.write(notebook, "executed.ipynb")


if __name__ == "__main__":
    main()
