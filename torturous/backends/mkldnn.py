"""oneDNN, which is not used here."""

from __future__ import annotations

enabled = True
"""Whether it would be used."""


def is_available() -> bool:
    return False
