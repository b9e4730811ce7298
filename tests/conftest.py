"""No progress bars in any room; mflib reads this when it is imported."""

import os

os.environ["MFLIB_PROGRESS"] = "0"
