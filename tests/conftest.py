"""Tests import their helpers by folder: `from compiler.oracle import Program` (this file puts `tests` on the path)."""
