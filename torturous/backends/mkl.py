"""Intel's mathematics library, which is not used here."""

from __future__ import annotations


def is_available() -> bool:
    return False
