"""For all tests: every plan that is made is verified.

Tests import each other's helpers by folder (`from compiler.oracle import Program`): this file, by being here,
puts the `tests` folder on the path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from compiler.verify import verify

from torturous.compiler.plan import Plan, make_plan
from torturous.runtime import planning
from torturous.runtime.flight import land
from torturous.runtime.realize import realize
from torturous.runtime.workers import Workers


@pytest.fixture(autouse=True, scope="session")
def every_plan_is_verified() -> Any:
    def verified(*arguments: Any) -> Plan:
        plan = make_plan(*arguments)
        verify(plan)
        return plan

    patch = pytest.MonkeyPatch()
    patch.setattr(planning, "make_plan", verified)
    yield
    patch.undo()


@pytest.fixture
def late_plans(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every plan that may be in the air is, and does nothing before it lands: who forgets to wait, sees it."""
    offered: list[tuple[int, int]] = []

    def join(workers: Workers) -> None:
        while offered:
            workers.run(*offered.pop())

    land()
    monkeypatch.setattr(Workers, "offer", lambda workers, table, entries: offered.append((table, entries)))
    monkeypatch.setattr(Workers, "join", join)
    monkeypatch.setattr(realize, "__defaults__", (False,))
    yield
    land()
