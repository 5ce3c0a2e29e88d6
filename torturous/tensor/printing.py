"""How tensors print: as PyTorch's do, character by character."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from math import isinf, isnan
from typing import Any

import numpy as np

from torturous.core import dtypes
from torturous.core.dtypes import Category
from torturous.tensor.base import TensorBase
from torturous.tensor.values import computed_values


@dataclass
class Options:
    """What `set_printoptions` sets."""

    precision: int = 4
    """Digits behind the point."""
    threshold: float = 1000
    """Elements beyond which only the edges are shown."""
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None
    """Scientific notation: always, never, or (None) where numbers ask for it."""


_options = Options()
_PROFILES = {
    "default": Options(), "short": Options(precision=2, edgeitems=2), "full": Options(threshold=float("inf")),
}


def set_printoptions(
    precision: int | None = None, threshold: float | None = None, edgeitems: int | None = None,
    linewidth: int | None = None, profile: str | None = None, sci_mode: bool | None = None,
) -> None:
    """Sets how tensors print, starting from a profile ("default", "short", "full") where one is given.

    `sci_mode` goes back to automatic whenever it is not given. ValueError for an unknown profile.
    """
    if profile is not None:
        if profile.lower() not in _PROFILES:
            raise ValueError(f"profile must be one of {', '.join(_PROFILES)}, not {profile!r}")
        chosen = _PROFILES[profile.lower()]
        for name in ("precision", "threshold", "edgeitems", "linewidth"):
            setattr(_options, name, getattr(chosen, name))
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    for name, value in given.items():
        if value is not None:
            setattr(_options, name, value)
    _options.sci_mode = sci_mode


class printoptions:
    """Within it, other print options: `with printoptions(precision=2): ...`."""

    def __init__(self, **options: Any) -> None:
        self._wanted = options

    def __enter__(self) -> None:
        self._before = replace(_options)
        set_printoptions(**self._wanted)

    def __exit__(self, *error: object) -> None:
        for field in fields(Options):
            setattr(_options, field.name, getattr(self._before, field.name))


class _Formatter:
    """Decides on one notation and width for all the elements shown, and writes them in it."""

    def __init__(self, shown: np.ndarray, floating: bool) -> None:
        self.floating = floating
        self.scientific = False
        self.whole = True
        """Whether every number shown is a whole one: then it is written as `3.`."""
        self.width = 1
        if not floating:
            texts = map(str, shown.reshape(-1).tolist())
            self.width = max(map(len, texts), default=1)
            return
        values = shown.reshape(-1).astype(np.float64)
        values = values[np.isfinite(values) & (values != 0)]
        if values.size:
            self._choose(values)

    def _choose(self, values: np.ndarray) -> None:
        sizes = np.abs(values)
        smallest, largest = sizes.min(), sizes.max()
        self.whole = bool((values == np.ceil(values)).all())
        wide = bool(largest / smallest > 1000.0 or largest > 1e8)
        self.scientific = wide or bool(not self.whole and smallest < 1e-4)
        if _options.sci_mode is not None:
            self.scientific = _options.sci_mode
        self.width = max(len(self._written(value, self.scientific)) for value in values.tolist())

    def _written(self, value: float, scientific: bool) -> str:
        if scientific:
            return f"{value:.{_options.precision}e}"
        if self.whole:
            return f"{value:.0f}" + ("" if isinf(value) or isnan(value) else ".")
        return f"{value:.{_options.precision}f}"

    def text(self, value: Any) -> str:
        written = self._written(value, self.scientific) if self.floating else str(value)
        return written.rjust(self.width)


def _edges(array: np.ndarray) -> np.ndarray:
    """The elements that a summary shows."""
    edge = _options.edgeitems
    for axis, size in enumerate(array.shape):
        if size > 2 * edge:
            array = array.take([*range(edge), *range(size - edge, size)], axis)
    return array


def _vector(array: np.ndarray, indent: int, summarise: bool, formatter: _Formatter) -> str:
    edge = _options.edgeitems
    per_line = max(1, (_options.linewidth - indent) // (formatter.width + 2))
    if summarise and not edge:
        words = ["..."]
    elif summarise and len(array) > 2 * edge:
        words = [formatter.text(v) for v in array[:edge].tolist()] + [" ..."]
        words += [formatter.text(v) for v in array[-edge:].tolist()]
    else:
        words = [formatter.text(v) for v in array.tolist()]
    lines = [", ".join(words[start:start + per_line]) for start in range(0, len(words), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _nested(array: np.ndarray, indent: int, summarise: bool, formatter: _Formatter) -> str:
    if array.ndim == 0:
        return formatter.text(array.item())
    if array.ndim == 1:
        return _vector(array, indent, summarise, formatter)
    edge = _options.edgeitems
    if summarise and len(array) > 2 * edge:
        parts = [_nested(part, indent + 1, summarise, formatter) for part in array[:edge]] + ["..."]
        parts += [_nested(part, indent + 1, summarise, formatter) for part in array[len(array) - edge:]]
    else:
        parts = [_nested(part, indent + 1, summarise, formatter) for part in array]
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def tensor_text(t: TensorBase, requires_grad: bool, gradient: str | None, contents: str | None = None) -> str:
    """What `repr` gives: elements, and whatever of size, dtype and gradients does not go without saying."""
    prefix, suffixes = "tensor(", []
    array = computed_values(t)
    ordinary = t.dtype in (dtypes.default_float(), dtypes.int64, dtypes.bool_)
    if array.size == 0:
        if array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        if t.dtype is not dtypes.default_float():
            suffixes.append(f"dtype={t.dtype}")
        text = "[]"
    else:
        if not ordinary:
            suffixes.append(f"dtype={t.dtype}")
        floating = t.dtype.category is Category.FLOATING
        if t.dtype.is_half:
            array = array.astype(np.float32)
        summarise = array.size > _options.threshold
        formatter = _Formatter(_edges(array) if summarise else array, floating)
        text = _nested(array, len(prefix), summarise, formatter)
    if contents is not None:
        text = contents
    if gradient is not None:
        suffixes.append(f"grad_fn=<{gradient}>")
    elif requires_grad:
        suffixes.append("requires_grad=True")
    return _with_suffixes(prefix + text, suffixes, len(prefix))


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Appends what is said about a tensor, on a new line where it does not fit."""
    length = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if length + len(suffix) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + suffix
            length = indent + len(suffix)
        else:
            text += ", " + suffix
            length += len(suffix) + 2
    return text + ")"


__all__ = ["printoptions", "set_printoptions"]
