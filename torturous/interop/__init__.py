"""Floor 8: how tensors meet the world. Files that other programs read and write."""

from torturous.interop.saving import load, save

__all__ = ["load", "save"]
