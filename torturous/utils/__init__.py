"""Helpers around training: removable hooks (`hooks`) and input pipelines (`data`)."""

from __future__ import annotations

from torturous.utils import data, hooks

__all__ = ["data", "hooks"]
