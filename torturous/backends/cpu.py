"""The processor, the one device there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torturous.core.deferred import deferred

if TYPE_CHECKING:
    from torturous.runtime import bound
else:
    bound = deferred("torturous.runtime.bound")


def get_cpu_capability() -> str:
    """The widest vectors in use, as PyTorch names them: "AVX512", "AVX2" or "DEFAULT"."""
    return _NAMES.get(bound.target().name, "DEFAULT")


_NAMES = {"avx512": "AVX512", "avx2": "AVX2"}
