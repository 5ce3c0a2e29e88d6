"""Sizes as symbols: polynomials over the variables of a plan, and affine functions of loop axes.

A plan's sizes are integers or variables; strides and extents are products of them, starting positions are slots.
`Size` holds all of these; equality is equality for every value of the variables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain

Variable = tuple[str, int]
"""("size", n): the plan's size variable n; ("many", n): the same, known to be MANY at least; ("slot", code): an
integer slot."""
MANY = 16
"""Samples that fill a vector."""
Monomial = tuple[Variable, ...]


class Size:
    """A polynomial with integer coefficients, immutable and hashable. Most are constants, which are kept and shared."""

    __slots__ = ("terms", "constant", "_hash")

    terms: dict[Monomial, int]
    constant: int | None
    """The value, if it does not depend on any variable."""

    def __init__(self, terms: Mapping[Monomial, int]) -> None:
        kept = {monomial: factor for monomial, factor in terms.items() if factor}
        self.terms = dict(sorted(kept.items())) if len(kept) > 1 else kept
        self.constant = 0 if not kept else kept.get(()) if len(kept) == 1 else None
        self._hash = hash(self.constant if self.constant is not None else tuple(self.terms.items()))

    def __reduce__(self) -> tuple:
        return (Size.of, (self.constant,)) if self.constant is not None else (Size, (self.terms,))

    @staticmethod
    def of(value: int | Size) -> Size:
        if isinstance(value, Size):
            return value
        known = _constants.get(value)
        if known is None:
            known = _constants[value] = Size({(): value})
        return known

    @staticmethod
    def variable(variable: Variable) -> Size:
        return Size({(variable,): 1})

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, int):
            return self.constant == other
        return isinstance(other, Size) and self._hash == other._hash and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: int | Size) -> Size:
        if not isinstance(other, Size):
            other = Size.of(other)
        if self.constant is not None and other.constant is not None:
            return Size.of(self.constant + other.constant)
        if self.constant == 0:
            return other
        if other.constant == 0:
            return self
        result = dict(self.terms)
        for monomial, factor in other.terms.items():
            result[monomial] = result.get(monomial, 0) + factor
        return Size(result)

    def __sub__(self, other: int | Size) -> Size:
        return self + Size.of(other) * -1

    def __mul__(self, other: int | Size) -> Size:
        if not isinstance(other, Size):
            other = Size.of(other)
        if self.constant is not None and other.constant is not None:
            return Size.of(self.constant * other.constant)
        if self.constant == 1:
            return other
        if other.constant == 1:
            return self
        result: dict[Monomial, int] = {}
        for mine, factor in self.terms.items():
            for theirs, other_factor in other.terms.items():
                key = tuple(sorted(mine + theirs))
                result[key] = result.get(key, 0) + factor * other_factor
        return Size(result)

    def over(self, divisor: Size) -> Size | None:
        """The quotient where it is a polynomial (both single terms)."""
        if not self.terms:
            return ZERO
        if len(self.terms) != 1 or len(divisor.terms) != 1:
            return None
        (mine, a), (theirs, b) = next(iter(self.terms.items())), next(iter(divisor.terms.items()))
        if a % b:
            return None
        left = list(mine)
        for variable in theirs:
            if variable not in left:
                return None
            left.remove(variable)
        return Size({tuple(left): a // b})

    @property
    def is_many(self) -> bool:
        """Whether it is a variable known to be MANY at least."""
        return len(self.terms) == 1 and all(
            factor == 1 and len(monomial) == 1 and monomial[0][0] == "many" for monomial, factor in self.terms.items())

    def variables(self) -> set[Variable]:
        return {variable for monomial in self.terms for variable in monomial}

    def evaluate(self, value: Callable[[Variable], int]) -> int:
        if self.constant is not None:
            return self.constant
        total = 0
        for monomial, factor in self.terms.items():
            for variable in monomial:
                factor *= value(variable)
            total += factor
        return total

    def __repr__(self) -> str:
        if not self.terms:
            return "0"
        parts = []
        for monomial, factor in self.terms.items():
            names = "·".join(f"{kind}{number}" for kind, number in monomial)
            parts.append(names if factor == 1 and names else f"{factor}·{names}" if names else str(factor))
        return " + ".join(parts)


_constants: dict[int, Size] = {}
ZERO, ONE = Size.of(0), Size.of(1)


def product(sizes: Iterable[Size]) -> Size:
    result = ONE
    for size in sizes:
        result = result * size
    return result


def row_major(shape: tuple[Size, ...]) -> tuple[Size, ...]:
    """Strides in elements of a contiguous buffer."""
    strides = [ONE] * len(shape)
    for axis in range(len(shape) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * shape[axis + 1]
    return tuple(strides)


class Affine:
    """constant + Σ coefficient · axis. Axes from 0 are a kernel's loops; below 0 its derived positions."""

    __slots__ = ("constant", "terms", "_hash")

    def __init__(self, constant: Size, terms: Mapping[int, Size]) -> None:
        self.constant = constant
        kept = {axis: factor for axis, factor in terms.items() if factor.constant != 0}
        self.terms = dict(sorted(kept.items())) if len(kept) > 1 else kept
        self._hash: int | None = None

    def __reduce__(self) -> tuple:
        return Affine, (self.constant, self.terms)

    @staticmethod
    def axis(axis: int) -> Affine:
        return Affine(ZERO, {axis: ONE})

    @staticmethod
    def fixed(value: int | Size) -> Affine:
        return Affine(Size.of(value), {})

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Affine) and self.constant == other.constant and self.terms == other.terms)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash((self.constant, tuple(self.terms.items())))
        return self._hash

    @staticmethod
    def sum(parts: Iterable[tuple[Affine, Size]]) -> Affine:
        """Σ part · factor."""
        constant, terms = ZERO, dict[int, Size]()
        for part, factor in parts:
            constant = constant + part.constant * factor
            for axis, mine in part.terms.items():
                terms[axis] = terms[axis] + mine * factor if axis in terms else mine * factor
        return Affine(constant, terms)

    def __add__(self, other: int | Size | Affine) -> Affine:
        if not isinstance(other, Affine):
            return Affine(self.constant + other, self.terms)
        terms = dict(self.terms)
        for axis, factor in other.terms.items():
            terms[axis] = terms[axis] + factor if axis in terms else factor
        return Affine(self.constant + other.constant, terms)

    def __mul__(self, factor: int | Size) -> Affine:
        return Affine(self.constant * factor, {axis: mine * factor for axis, mine in self.terms.items()})

    def __sub__(self, other: int | Size | Affine) -> Affine:
        return self + (other if isinstance(other, Affine) else Size.of(other)) * -1

    def factor(self, axis: int) -> Size:
        return self.terms.get(axis, ZERO)

    def renamed(self, axes: Mapping[int, Affine]) -> Affine:
        """With axes replaced by what they are in other axes."""
        parts = ((axes[axis] if axis in axes else Affine.axis(axis), factor) for axis, factor in self.terms.items())
        return Affine.sum(chain([(Affine.fixed(self.constant), ONE)], parts))

    def __repr__(self) -> str:
        parts = [f"({factor})·i{axis}" if axis >= 0 else f"({factor})·d{~axis}" for axis, factor in self.terms.items()]
        return " + ".join([*parts, repr(self.constant)] if self.constant != 0 or not parts else parts)
