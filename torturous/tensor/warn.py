"""Warnings that point at the user's line, however deep inside this package they arise."""

from __future__ import annotations

import sys
import warnings

_PACKAGE = __name__.partition(".")[0] + "."


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the innermost line outside this package."""
    level = 2  # 1 is this function's own line.
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)
