"""Start the kernels of nbval without the user's settings and under the combined disturbance."""

import os
from contextlib import ExitStack
from pathlib import Path


def pytest_configure(config):
    if config.getoption("nbval", False):
        from disturbances import COMBINED
        from fresh_kernel import own_settings

        stack = ExitStack()
        environment = stack.enter_context(own_settings(Path(__file__).parent))
        os.environ.clear()
        os.environ.update(environment | COMBINED | {"MFLIB_DATASET": "ml-100k"})
        config.add_cleanup(stack.close)
