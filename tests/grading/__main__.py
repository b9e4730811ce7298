"""``python -m grading``; see ``python -m grading --help``."""

import io
import os
import sys

if not sys.flags.utf8_mode:  # the locale may lack the characters of students' names
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
if isinstance(sys.stdout, io.TextIOWrapper):  # with the encoding from PYTHONIOENCODING
    sys.stdout.reconfigure(errors="backslashreplace")

from grading.cli import main

main()
