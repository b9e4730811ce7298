"""Switch off progress bars in all tests; mflib reads the variable on import."""

import os

os.environ["MFLIB_PROGRESS"] = "0"
