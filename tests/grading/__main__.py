"""``python -m grading``; see ``python -m grading --help``."""

from grading.cli import main

main()
