"""Floor 8: leaving Python. A model's plan becomes a static library and a C header."""

from __future__ import annotations

from torturous.native.export import Bundle, SizeBudgetError, export
from torturous.native.training import export_training

__all__ = ["Bundle", "SizeBudgetError", "export", "export_training"]
