"""Kernels and workers for the tests of the driver and of the workers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crews import COUNT, EXPECT, SIGN, load, make_workers

from torturous.runtime.workers import Workers


@pytest.fixture(scope="session")
def kernels() -> dict[str, int]:
    return {"count": load(COUNT, "count"), "sign": load(SIGN, "sign"), "expect": load(EXPECT, "expect")}


@pytest.fixture(params=[1, 2, 3, 5])
def workers(request: pytest.FixtureRequest) -> Iterator[Workers]:
    created = make_workers(request.param)
    yield created
    created.close()
