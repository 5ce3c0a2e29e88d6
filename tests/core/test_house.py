"""Rules of the house that the linters do not know: where imports stand, how long a file may be."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import torturous

HOUSE = Path(torturous.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
LONGEST = 500
"""Lines that still fit one head."""


def late_imports(path: Path) -> Iterator[str]:
    """Imports of our own modules within functions."""
    for function in ast.walk(ast.parse(path.read_text())):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for node in ast.walk(function):
            if isinstance(node, ast.ImportFrom):
                names = ["." * node.level + (node.module or "")]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            yield from (f"{path.relative_to(HOUSE)}:{node.lineno} imports {name}"
                        for name in names if name.startswith(("torturous", ".")))


def test_our_own_modules_are_imported_at_the_top() -> None:
    """Imports within functions hide what a floor stands on; what must be late is `core.deferred`'s."""
    assert [late for path in FILES for late in late_imports(path)] == []


def test_a_file_fits_one_head() -> None:
    lengths = {str(path.relative_to(HOUSE)): len(path.read_text().splitlines()) for path in FILES}
    assert {path: length for path, length in lengths.items() if length > LONGEST} == {}
