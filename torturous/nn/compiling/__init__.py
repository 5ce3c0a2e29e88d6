"""`torturous.compile`: calls that need not be recorded again.

Everything is compiled with or without it; what it saves is the Python of a function, whose rows are recorded in one
step when it is called as before (`tensor/traces.py`). That takes care: `watching.py` sees what code of the user's
runs, `state.py` remembers all Python state that this code can read, and `compiled.py` puts them together.
"""

from torturous.nn.compiling.compiled import OptimizedModule, compile

__all__ = ["OptimizedModule", "compile"]
