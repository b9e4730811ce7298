"""Download a data set, even while a file of the student's mflib cannot be imported.

    python -m grading.student.obtain ml-100k

suite.py puts the checks' copy of mflib first on the path.
"""

import os

from grading.student.check import ROOT
from mflib.data import main

if __name__ == "__main__":
    os.environ.setdefault("MFLIB_DATA", str(ROOT / "data"))
    main()
