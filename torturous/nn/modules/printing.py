"""How a module is printed: its name, its options, its children, as PyTorch does it."""

from __future__ import annotations


def indent(text: str) -> str:
    """`text` with every line but the first moved right by two columns."""
    return text.replace("\n", "\n  ")


def tree(name: str, extra_lines: list[str], child_lines: list[str]) -> str:
    """The printed form of a module: on one line where there is one line of `extra_lines` and no child."""
    if len(extra_lines) == 1 and not child_lines:
        return f"{name}({extra_lines[0]})"
    lines = extra_lines + child_lines
    if not lines:
        return f"{name}()"
    return f"{name}(\n  " + "\n  ".join(lines) + "\n)"
