"""The memory that one call works in, as a formula of batch and workers: in Python, in C and as instructions.

    control block | entries | argument tables | arena … | values kept back | scratch memory of each worker

each part at a multiple of 64 bytes. What is kept back are results that replace something in the caller's memory: they
are copied there when all has gone well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from torturous.codegen.builder import Builder, Integer
from torturous.codegen.table import ENTRY_BYTES
from torturous.compiler.memory import ALIGNMENT, PADDING
from torturous.compiler.sizes import Size
from torturous.native.walker import CONTROL_BYTES

BATCH = Size.variable(("batch", 0))
Candidates = tuple[Size, ...]
"""Several sizes of which the largest counts."""


@dataclass(frozen=True)
class Places:
    """Where the parts begin, as integers or values of a function being written."""

    entries: int
    tables: int
    slots: list[Integer]
    kept: list[Integer]
    scratch: Integer
    stride: Integer
    """Bytes of scratch memory per worker."""


@dataclass(frozen=True)
class Workspace:
    """The parts' sizes in bytes, as polynomials in the batch."""

    kernels: int
    arguments: int
    """In all argument tables."""
    slots: tuple[Candidates, ...]
    """Of the arena; one without sizes is used by nothing that runs."""
    kept: tuple[Size, ...]
    scratch: Candidates

    @property
    def fixed(self) -> int:
        """Bytes in front of the arena."""
        return CONTROL_BYTES + _raised(self.kernels * ENTRY_BYTES) + _raised(8 * self.arguments)

    def at(self, batch: int) -> Workspace:
        """The same for one batch, whatever the call's is."""
        def largest(sizes: Candidates) -> Candidates:
            return (Size.of(max(size.evaluate(lambda variable: batch) for size in sizes)),) if sizes else ()

        kept = tuple(size for each in self.kept for size in largest((each,)))
        return replace(self, slots=tuple(map(largest, self.slots)), kept=kept, scratch=largest(self.scratch))

    def nbytes(self, batch: int, workers: int) -> int:
        """The whole."""
        here = self.at(batch)
        moving = sum(_raised((size.constant or 0) + PADDING) for sizes in [*here.slots, here.kept] for size in sizes)
        return self.fixed + moving + workers * _raised(sum(size.constant or 0 for size in here.scratch))

    def c_expression(self, prefix: str) -> str:
        """The whole as a C expression in `batch` and `workers`, with the macros that `C_MACROS` defines."""

        def largest(sizes: Candidates) -> str:
            text = c_size(sizes[0]) if sizes else "0"
            for size in sizes[1:]:
                text = f"{prefix}_LARGER_({text}, {c_size(size)})"
            return text

        parts = [str(self.fixed)]
        parts += [f"{prefix}_RAISED_({largest(sizes)} + {PADDING})" for sizes in self.slots if sizes]
        parts += [f"{prefix}_RAISED_({c_size(size)} + {PADDING})" for size in self.kept]
        if self.scratch:
            parts.append(f"(int64_t)(workers) * {prefix}_RAISED_({largest(self.scratch)})")
        return " + ".join(parts)

    def places(self, b: Builder) -> Places:
        """Writes what works out where the parts begin, at `%batch`."""
        known: dict[Size, Integer] = {}
        slots, kept, end = [], [], self.fixed
        position: Integer = end
        for sizes in self.slots:
            slots.append(position)
            if not sizes:
                continue
            position = b.add(position, _aligned(b, b.add(_largest(b, sizes, known), PADDING)))
        for size in self.kept:
            kept.append(position)
            position = b.add(position, _aligned(b, b.add(polynomial(b, size, known), PADDING)))
        stride = _aligned(b, _largest(b, self.scratch, known))
        entries = CONTROL_BYTES
        return Places(entries, entries + _raised(self.kernels * ENTRY_BYTES), slots, kept, position, stride)

    def total(self, b: Builder, workers: Integer) -> Integer:
        """Writes what works out the whole, at `%batch`."""
        places = self.places(b)
        return b.add(places.scratch, b.mul(places.stride, workers))


def candidates(sizes: Iterable[Size]) -> Candidates:
    """Sizes of which one is the largest at every batch from 1 on; what another one always exceeds is left out."""
    chosen: list[Size] = []
    for size in sorted(set(sizes), key=repr):
        if size.constant != 0 and not any(_exceeds(other, size) for other in chosen):
            chosen = [other for other in chosen if not _exceeds(size, other)] + [size]
    return tuple(chosen)


def _exceeds(a: Size, b: Size) -> bool:
    """Whether a ≥ b at every batch from 1 on: written in batch − 1, no factor of the difference is negative."""
    return all(factor >= 0 for factor in _shifted(a - b))


def _shifted(size: Size) -> list[int]:
    """The factors of a polynomial in the batch, as one in batch − 1."""
    degree = max((len(monomial) for monomial in size.terms), default=0)
    factors = [0] * (degree + 1)
    for monomial, factor in size.terms.items():
        factors[len(monomial)] += factor
    for start in range(degree):  # Horner's scheme, over and over.
        for position in range(degree - 1, start - 1, -1):
            factors[position] += factors[position + 1]
    return factors


def c_size(size: Size) -> str:
    """A polynomial in the batch as C text."""
    terms = [" * ".join([f"INT64_C({factor})", *["(int64_t)(batch)"] * len(monomial)])
             for monomial, factor in size.terms.items()]
    return f"({' + '.join(terms)})" if terms else "0"


def polynomial(b: Builder, size: Size, known: dict[Size, Integer]) -> Integer:
    """Writes what works out a polynomial in `%batch`, once."""
    value = known.get(size)
    if value is None:
        value = 0
        for monomial, factor in size.terms.items():
            part: Integer = factor
            for _ in monomial:
                part = b.mul(part, "%batch")
            value = b.add(value, part)
        known[size] = value
    return value


def _largest(b: Builder, sizes: Candidates, known: dict[Size, Integer]) -> Integer:
    value: Integer = 0
    for position, size in enumerate(sizes):
        other = polynomial(b, size, known)
        value = other if position == 0 else b.maximum(value, other)
    return value


def _raised(count: int) -> int:
    return -(-count // ALIGNMENT) * ALIGNMENT


def _aligned(b: Builder, count: Integer) -> Integer:
    raised = b.add(count, ALIGNMENT - 1)
    return raised & -ALIGNMENT if isinstance(raised, int) else b.value(f"and i64 {raised}, {-ALIGNMENT}")


C_MACROS = """\
#define ${upper}_LARGER_(a, b) ((a) > (b) ? (a) : (b))
#define ${upper}_RAISED_(bytes) (((bytes) + 63) / 64 * 64)"""
