"""The processor, the one device there is."""

from __future__ import annotations

from torturous.runtime.bound import target


def get_cpu_capability() -> str:
    """The widest vectors in use, as PyTorch names them: "AVX512", "AVX2" or "DEFAULT"."""
    return _NAMES.get(target().name, "DEFAULT")


_NAMES = {"avx512": "AVX512", "avx2": "AVX2"}
