"""What the functions of an exported library return."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Zero, or why nothing was done."""

    OK = 0
    ENULL = 1
    EALIGN = 2
    EBATCH = 3
    ESIZE = 4
    EWEIGHTS = 5
    EINDEX = 6
    ETARGET = 7
    EWORKERS = 8
    EPOOL = 9


MESSAGES = {
    Code.OK: "success",
    Code.ENULL: "a pointer is null",
    Code.EALIGN: "a pointer is not aligned (blocks, workspace: 64 bytes; inputs, outputs: their elements)",
    Code.EBATCH: "the batch is below 1 or above the largest that the library was made for",
    Code.ESIZE: "the memory given is too small",
    Code.EWEIGHTS: "the file or block is damaged or belongs to another model",
    Code.EINDEX: "an index in an input is out of range",
    Code.ETARGET: "this processor lacks the instructions that the library was made for",
    Code.EWORKERS: "the number of workers is below 1 or above the largest that is possible",
    Code.EPOOL: "the pool left a piece out, did one twice or gave a worker that does not exist",
}
