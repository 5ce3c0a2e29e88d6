"""Einstein summation: axes get letters, letters that the result has not are summed.

Two operands at a time become one contraction, from the first to the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters
from typing import TYPE_CHECKING, Any

from torturous.core.shapes import describe, normalize_axes
from torturous.ir.contraction import CONTRACT, lone
from torturous.tensor.applying import apply_typed
from torturous.tensor.base import TensorBase
from torturous.tensor.linear import same_dtype
from torturous.tensor.lowering import lowered

if TYPE_CHECKING:
    from torturous.tensor.tensor import Tensor


@lowered
def einsum(equation: Any, *operands: Any) -> Tensor:
    """`einsum("bij,bjk->bik", x, y)`, or with lists of axis numbers in place of letters.

    Without an arrow the result has the letters that occur once, in alphabetical order. `...` stands for axes that
    broadcast; a letter repeated within an operand is its diagonal. RuntimeError where letters do not fit the shapes.
    """
    if isinstance(equation, TensorBase):
        equation, operands = _of_numbers([equation, *operands])
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    inputs, arrow, result = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if len(terms) != len(operands):
        raise RuntimeError(
            f"einsum(): the number of operands in the equation ({len(terms)}) does not match the number of operands "
            f"given ({len(operands)})")
    for letter in inputs.replace(",", "").replace("...", "") + result.replace("...", ""):
        if letter not in ascii_letters:
            raise RuntimeError(f"einsum(): invalid subscript given: {letter!r}; letters and ... are allowed")
    hidden = max((_hidden(term, operand) for term, operand in zip(terms, operands, strict=True)), default=0)
    # The axes that ... stands for get names below those of letters.
    names = [chr(1 + k) for k in range(hidden)]
    parts = [_named(term, operand, names) for term, operand in zip(terms, operands, strict=True)]
    if arrow:
        wanted = result.replace("...", "".join(names), 1)
    else:
        letters = [letter for letter in inputs if letter in ascii_letters]
        wanted = "".join(names) + "".join(sorted(x for x in set(letters) if letters.count(x) == 1))
    sizes = _sizes(parts)
    for letter in wanted:
        if letter not in sizes:
            raise RuntimeError(
                f"einsum(): output subscript {letter} does not appear in the equation for any input operand")
        if wanted.count(letter) > 1:
            raise RuntimeError(f"einsum(): output subscript {letter} appears more than once in the output")
    parts = [_without_repeats(term, operand) for term, operand in parts]
    term, total = parts[0]
    for number, (other, operand) in enumerate(parts[1:], 1):
        later = set(wanted).union(*(rest for rest, _ in parts[number + 1:]))
        last = number == len(parts) - 1
        kept = wanted if last else "".join(dict.fromkeys(x for x in term + other if x in later))
        total = _product(term, total, other, operand, kept, sizes)
        term = kept
    return _summed(term, total, wanted, sizes)


def _of_numbers(arguments: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """The equation for operands that are followed by lists of axis numbers, and maybe a last one for the result."""
    operands, lists = arguments[0::2], arguments[1::2]
    result = None
    if len(arguments) % 2:
        operands, result = operands[:-1], operands[-1]

    def word(numbers: Sequence[Any]) -> str:
        return "".join("..." if number is Ellipsis else ascii_letters[number] for number in numbers)

    equation = ",".join(map(word, lists))
    return (equation if result is None else f"{equation}->{word(result)}"), tuple(operands)


def _hidden(term: str, operand: Any) -> int:
    """How many axes `...` stands for; RuntimeError where letters and axes do not agree."""
    letters = len(term.replace("...", ""))
    rank = len(operand.shape)
    if "." not in term and letters != rank or letters > rank:
        raise RuntimeError(
            f"einsum(): the number of subscripts in the equation ({letters}) does not match the number of dimensions "
            f"({rank}) of operand {describe(operand.shape)}")
    return rank - letters


def _named(term: str, operand: Any, names: Sequence[str]) -> tuple[str, Any]:
    own = _hidden(term, operand)
    return term.replace("...", "".join(names[len(names) - own:]), 1), operand


def _sizes(parts: Sequence[tuple[str, Any]]) -> dict[str, int]:
    """The size of every letter; sizes of 1 broadcast."""
    sizes: dict[str, int] = {}
    for term, operand in parts:
        for letter, size in zip(term, operand.shape, strict=True):
            known = sizes.setdefault(letter, size)
            if known == 1:
                sizes[letter] = size
            elif size not in (1, known):
                raise RuntimeError(
                    f"einsum(): subscript {letter} has size {size} in {describe(operand.shape)}, which does not match "
                    f"previously seen size {known}")
    return sizes


def _without_repeats(term: str, operand: Any) -> tuple[str, Any]:
    """A letter that an operand has twice becomes its diagonal, one axis."""
    for letter in dict.fromkeys(term):
        while term.count(letter) > 1:
            first = term.index(letter)
            second = term.index(letter, first + 1)
            operand = operand.diagonal(0, first, second)
            term = term[:first] + term[first + 1:second] + term[second + 1:] + letter
    return term, operand


def _summed(term: str, t: Any, wanted: str, sizes: dict[str, int]) -> Tensor:
    """One operand with its other letters summed, in the order wanted, and broadcast to the sizes."""
    extra = [axis for axis, letter in enumerate(term) if letter not in wanted]
    kept = [letter for letter in term if letter in wanted]
    t = t.sum(extra) if extra else t
    return t.permute([kept.index(letter) for letter in wanted]) if kept != list(wanted) else t


def _product(first: str, a: Any, second: str, b: Any, wanted: str, sizes: dict[str, int]) -> Any:
    """Two operands multiplied, what is not wanted of both being summed."""
    parts = []
    for term, t, other in ((first, a, second), (second, b, first)):
        # What only one of the two has is summed before; what is of size 1 where the other is not broadcasts.
        alone = [axis for axis, letter in enumerate(term) if letter not in wanted and letter not in other]
        t = t.sum(alone) if alone else t
        term = "".join(letter for letter in term if letter in wanted or letter in other)
        parts.append((term, t))
    both = "".join(dict.fromkeys(parts[0][0] + parts[1][0]))
    local = {letter: max(t.shape[term.index(letter)] for term, t in parts if letter in term) for letter in both}
    narrow = [[axis for axis, letter in enumerate(term) if t.shape[axis] == 1 != local[letter]] for term, t in parts]
    squeezed = []
    for (term, t), axes in zip(parts, narrow, strict=True):
        squeezed.append(("".join(x for axis, x in enumerate(term) if axis not in axes), t.squeeze(axes) if axes else t))
    reduced = [letter for letter in both if letter not in wanted]
    order = [letter for letter in wanted if letter in both]
    loops = {letter: loop for loop, letter in enumerate([*order, *reduced])}
    maps = [tuple(lone(loops[letter]) for letter in term) for term, _ in squeezed]
    tensors = [t for _, t in squeezed]
    dtype = same_dtype("einsum", *tensors)
    shape = tuple(local[letter] for letter in order)
    return apply_typed(CONTRACT, shape, dtype, *tensors, attributes=(len(reduced), *maps))


def tensordot(a: Any, b: Any, dims: Any = 2) -> Tensor:
    """Sums over pairs of axes: the last of `a` and the first of `b`, so many, or those listed for each."""
    if isinstance(dims, TensorBase):
        dims = dims.tolist()  # type: ignore[attr-defined]
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(len(a.shape), len(b.shape)):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        left, right = list(range(len(a.shape) - dims, len(a.shape))), list(range(dims))
    else:
        one, other = ([axes] if isinstance(axes, int) else list(axes) for axes in dims)
        left = [normalize_axes(axis, len(a.shape))[0] for axis in one]
        right = [normalize_axes(axis, len(b.shape))[0] for axis in other]
    if len(left) != len(right):
        raise RuntimeError(f"both dimension lists should have same length, got {left} and {right}")
    for i, j in zip(left, right, strict=True):
        if a.shape[i] != b.shape[j] and 1 not in (a.shape[i], b.shape[j]):
            raise RuntimeError(f"contracted dimensions need to match, but first has size {a.shape[i]} in dim {i} and "
                               f"second has size {b.shape[j]} in dim {j}")
    letters = iter(ascii_letters)
    first = [next(letters) for _ in a.shape]
    second = [first[left[right.index(axis)]] if axis in right else next(letters) for axis in range(len(b.shape))]
    kept = [x for axis, x in enumerate(first) if axis not in left]
    kept += [x for axis, x in enumerate(second) if axis not in right]
    return einsum(f"{''.join(first)},{''.join(second)}->{''.join(kept)}", a, b)


__all__ = ["einsum", "tensordot"]
