"""Exceptions of this project's own; whatever PyTorch raises a standard type for is raised as that type."""

from __future__ import annotations


class LinAlgError(RuntimeError):
    """Linear algebra that has no answer, as a singular matrix has no inverse (PyTorch's `torch.linalg.LinAlgError`)."""


class UnsupportedError(NotImplementedError):
    """Something that PyTorch can do and this version cannot; the message says what."""
