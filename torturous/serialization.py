"""`torch.serialization`: what a file that may hold nothing but weights can name beside them."""

from torturous.interop import load, save
from torturous.interop.trust import add_safe_globals, clear_safe_globals, get_safe_globals, safe_globals

__all__ = ["add_safe_globals", "clear_safe_globals", "get_safe_globals", "load", "safe_globals", "save"]
