"""The program of a compiling helper process: LLVM IR in, objects out.

LLVM can abort its process, and llvmlite compiles one module at a time per process. So LLVM's code generation
lives in a few of these, started by `service.py` as `python helper.py` with pipes. This file imports nothing
of the package: a helper starts as fast as llvmlite loads.

A message, either way, is two little-endian uint32 lengths, a JSON header of the first length and a payload of
the second. The first request is `{"paths": [...]}`, folders to find llvmlite in, and is not answered. Every
further one holds IR as its payload and is answered by an object (or assembly text), or by the header's
`error`. The helper ends when its input ends, which is also what happens when its parent dies.
"""
from __future__ import annotations

import json
import os
import struct
import sys
from typing import IO, Any

_LENGTHS = struct.Struct("<II")
# Levels 1 to 3 give the same code for IR that is already in explicit vectors.
_OPTIMIZATION = 2


def read_exactly(stream: IO[bytes], size: int) -> bytes:
    """Reads `size` bytes; raises EOFError if the other side has closed the pipe."""
    parts = []
    while size:
        part = stream.read(size)
        if not part:
            raise EOFError("the pipe was closed")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    """Reads one header and its payload; raises EOFError if the other side has closed the pipe."""
    header_size, payload_size = _LENGTHS.unpack(read_exactly(stream, _LENGTHS.size))
    header = json.loads(read_exactly(stream, header_size))
    return header, read_exactly(stream, payload_size)


def write_message(stream: IO[bytes], header: dict[str, Any], payload: bytes = b"") -> None:
    """Writes one header and its payload; raises BrokenPipeError if the other side is gone."""
    encoded = json.dumps(header).encode()
    rest = memoryview(_LENGTHS.pack(len(encoded), len(payload)) + encoded + payload)
    while rest:
        rest = rest[stream.write(rest):]  # an unbuffered pipe may take less than all
    stream.flush()


class Compiler:
    """LLVM's code generators, one target machine for each target that was asked for."""

    def __init__(self) -> None:
        import llvmlite.binding as llvm

        self._llvm = llvm
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        llvm.initialize_native_asmparser()  # for inline assembly
        self._machines: dict[tuple[str, ...], Any] = {}

    def warm(self) -> None:
        """Compiles next to nothing, so that the first real module finds LLVM's code in memory."""
        triple = self._llvm.get_default_triple()
        self.compile(b"define void @warm() { ret void }", {"triple": triple, "cpu": "", "features": ""})

    def compile(self, text: bytes, header: dict[str, Any]) -> bytes:
        """Compiles one module, already in its final form: no pass pipeline runs.

        Raises RuntimeError with LLVM's message where the text is not valid IR or the target is unknown.
        """
        machine = self._machine(
            header["triple"], header["cpu"], header["features"], header.get("abi", ""), header.get("relocation", "pic"))
        with self._llvm.parse_assembly(text.decode(), self._llvm.create_context()) as module:
            module.triple = header["triple"]
            module.verify()
            if header.get("assembly"):
                return machine.emit_assembly(module).encode()
            return machine.emit_object(module)

    def _machine(self, triple: str, cpu: str, features: str, abi: str, relocation: str) -> Any:
        key = triple, cpu, features, abi, relocation
        known = self._machines.get(key)
        if known is not None:
            return known
        llvm = self._llvm
        try:
            target = llvm.Target.from_triple(triple)
        except RuntimeError:  # not this machine's architecture
            llvm.initialize_all_targets()
            llvm.initialize_all_asmprinters()
            target = llvm.Target.from_triple(triple)
        machine = target.create_target_machine(
            cpu=cpu, features=features, opt=_OPTIMIZATION, reloc=relocation, codemodel="small", abiname=abi
        )
        self._machines[key] = machine
        return machine


def _forbid_core_dumps() -> None:
    """An abort inside LLVM becomes an exception in the parent; a core file for each helps nobody."""
    try:
        import resource
    except ImportError:  # no such thing on Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def channel() -> tuple[IO[bytes], IO[bytes]]:
    """Where requests come from and answers go to, in a process that does nothing else."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between the answers
    _forbid_core_dumps()
    return sys.stdin.buffer, answers


def main() -> None:
    """Answers requests until standard input ends."""
    requests, answers = channel()
    try:
        hello, _ = read_message(requests)
        # This file's own folder would shadow other modules, and nothing in it is needed.
        own = os.path.dirname(os.path.abspath(__file__))
        sys.path[:] = [path for path in sys.path if os.path.abspath(path) != own]
        sys.path.extend(hello["paths"])
        compiler = Compiler()
        compiler.warm()
        while True:
            header, text = read_message(requests)
            try:
                result = compiler.compile(text, header)
            except (RuntimeError, UnicodeDecodeError) as error:
                write_message(answers, {"error": str(error).strip()})
            else:
                write_message(answers, {}, result)
    except (EOFError, BrokenPipeError):
        # The parent has closed the pipe or died. Nothing is left to tidy, and LLVM's teardown takes time.
        os._exit(0)


if __name__ == "__main__":
    main()
