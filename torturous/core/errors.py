"""Exceptions of this project's own; whatever PyTorch raises a standard type for is raised as that type."""

from __future__ import annotations


class UnsupportedError(NotImplementedError):
    """Something that PyTorch can do and this version cannot; the message says what."""
