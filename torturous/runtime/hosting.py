"""Host ops in a plan: Python between two native stretches."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from torturous.compiler.graph import Node
from torturous.compiler.sizes import Size
from torturous.core.dtypes import DType
from torturous.core.shapes import Shape
from torturous.ir.op import Type
from torturous.ir.record import describe_place


@dataclass(frozen=True)
class HostCall:
    """One host op of a bound plan: it runs in place of the plan table's entry number `entry`."""

    entry: int
    node: Node
    first: int
    """Where in the argument table the operands' addresses stand, the result's after them."""
    shapes: tuple[Shape, ...]

    @staticmethod
    def bound(entry: int, node: Node, first: int, evaluate: Callable[[Size], int]) -> HostCall:
        shapes = tuple(tuple(map(evaluate, each.shape)) for each in (*node.inputs, node))
        return HostCall(entry, node, first, shapes)

    def run(self, table: np.ndarray) -> None:
        """Computes the result into its buffer. Whatever the op raises is passed on, with the line that recorded it."""
        nodes = (*self.node.inputs, self.node)
        arrays = [
            _array(int(table[self.first + position]), shape, node.dtype)
            for position, (shape, node) in enumerate(zip(self.shapes, nodes, strict=True))
        ]
        *operands, result = arrays
        assert self.node.op.meaning is not None
        try:
            result[...] = self.node.op.meaning(Type(self.shapes[-1], self.node.dtype), self.node.attributes, *operands)
        except Exception as error:
            text = f"{error} (recorded at {describe_place(self.node.place)})"
            raise type(error)(text) from error


def _array(address: int, shape: Sequence[int], dtype: DType) -> np.ndarray:
    """A buffer's memory as an array."""
    count = int(np.prod(shape)) * dtype.itemsize
    memory = memoryview((ctypes.c_ubyte * count).from_address(address))
    return np.frombuffer(memory, np.uint8).view(dtype.numpy).reshape(shape)
