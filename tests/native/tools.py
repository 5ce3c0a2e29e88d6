"""Programs that tests of exported libraries need besides Python."""
from __future__ import annotations

import os
import shutil

import pytest


def tool(*names: str) -> str:
    """The path of the first of these programs that is there.

    The test is skipped, with the name, if none is; it fails where TORTUROUS_ALL_TOOLS says that all are there.
    """
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    if os.environ.get("TORTUROUS_ALL_TOOLS"):
        pytest.fail(f"needs {' or '.join(names)}, and TORTUROUS_ALL_TOOLS says that every tool is there")
    pytest.skip(f"needs {' or '.join(names)}")
