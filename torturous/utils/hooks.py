"""Hook tables and the handles that take a hook out of its table again (see `core.hooks`)."""

from torturous.core.hooks import RemovableHandle, add_hook

__all__ = ["RemovableHandle", "add_hook"]
