"""Obtain a data set, also where a file of mflib cannot be imported just now.

python checks/obtain.py ml-100k
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    sys.path.insert(0, str(HERE / "suite"))
    os.environ.setdefault("MFLIB_DATA", str(HERE.parent / "data"))
    from mflib.data import main

    main()
