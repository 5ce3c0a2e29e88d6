"""For all tests: every plan that is made is verified.

Tests import each other's helpers by folder (`from compiler.oracle import Program`): this file, by being here,
puts the `tests` folder on the path.
"""

from __future__ import annotations

from typing import Any

import pytest
from compiler.verify import verify

from torturous.compiler.plan import Plan, make_plan
from torturous.runtime import planning


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
