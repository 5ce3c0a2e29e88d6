"""From kernels as IR to kernels as addresses: cache, compile, check, keep, load."""
from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torturous.codegen import objectfile
from torturous.codegen.service import CompilationError, Service, Source
from torturous.codegen.target import Target
from torturous.runtime import objects
from torturous.runtime.linker import LinkError, link


@dataclass(frozen=True)
class KernelSource:
    """A module of LLVM IR that defines the function `symbol`, with words for the user as in `Source`."""

    symbol: str
    text: str
    description: str


@dataclass
class Statistics:
    """What building has cost this process so far, in kernels and in seconds."""

    kernels_compiled: int = 0
    #: Found on disk; those found in memory are in `memory_hits`.
    cache_hits: int = 0
    memory_hits: int = 0
    #: Time that callers waited for the compiling processes.
    compile_seconds: float = 0.0
    link_seconds: float = 0.0


class Builder:
    """Builds kernels with one cache and one pool of compiling processes, and remembers their addresses."""

    def __init__(self, cache: objects.ObjectCache, service: Service) -> None:
        self.cache = cache
        self.service = service
        self.statistics = Statistics()
        self._addresses: dict[str, int] = {}

    def build(self, sources: Sequence[KernelSource], target: Target) -> list[int]:
        """The address of each source's function, in their order; what is missing is compiled in parallel.

        `target` must be one that this machine can run (`host_target`). Raises CompilationError if LLVM
        refuses a module or aborts on it, ObjectFileError if the code calls functions outside itself, and
        LinkError if it cannot be loaded. What the other sources gave is kept all the same.
        """
        keys = [objects.key(source.text, target) for source in sources]
        missing: dict[str, KernelSource] = {}
        for key, source in zip(keys, sources, strict=True):
            if key in self._addresses:
                self.statistics.memory_hits += 1
            elif key not in missing and not self._load(key, source):
                missing[key] = source
        if missing:
            self._compile(missing, target)
        return [self._addresses[key] for key in keys]

    def objects(
        self, sources: Sequence[KernelSource], target: Target, others: frozenset[str] = frozenset()
    ) -> list[bytes]:
        """Each source's object, from the cache or compiled, checked but not linked into this process. They may use
        the symbols `others` besides what every object may."""
        keys = [objects.key(source.text, target) for source in sources]
        found = {key: data for key in keys if (data := self.cache.get(key)) is not None}
        missing = {key: source for key, source in zip(keys, sources, strict=True) if key not in found}
        modules = [Source(source.text, source.description) for source in missing.values()]
        for (key, source), data in zip(missing.items(), self.service.compile(modules, target), strict=True):
            objectfile.check(data, source.description, others)
            self.cache.put(key, data)
            found[key] = data
        return [found[key] for key in keys]

    def adopt(self, source: KernelSource, target: Target, data: bytes) -> int:
        """The address of a source's function whose object somebody else has compiled. Raises as `build` does."""
        key = objects.key(source.text, target)
        if key not in self._addresses:
            self._link(key, source, data)
        return self._addresses[key]

    def _load(self, key: str, source: KernelSource) -> bool:
        """Loads a kernel from the cache; False if it is not there or what is there cannot be loaded."""
        data = self.cache.get(key)
        if data is None:
            return False
        try:
            self._link(key, source, data)
        except (objectfile.ObjectFileError, LinkError):
            return False  # compiled again, and replaced
        self.statistics.cache_hits += 1
        return True

    def _compile(self, missing: dict[str, KernelSource], target: Target) -> None:
        start = time.perf_counter()
        modules = [Source(source.text, source.description) for source in missing.values()]
        outcomes = self.service.outcomes(modules, target)
        self.statistics.compile_seconds += time.perf_counter() - start
        failure: RuntimeError | None = None
        for (key, source), outcome in zip(missing.items(), outcomes, strict=True):
            try:
                if isinstance(outcome, CompilationError):
                    raise outcome
                self.statistics.kernels_compiled += 1
                self._link(key, source, outcome)
                self.cache.put(key, outcome)
            except (CompilationError, objectfile.ObjectFileError, LinkError) as error:
                failure = failure or error
        if failure is not None:
            raise failure

    def _link(self, key: str, source: KernelSource, data: bytes) -> None:
        start = time.perf_counter()
        objectfile.check(data, source.description)
        self._addresses[key] = link(data, source.symbol)
        self.statistics.link_seconds += time.perf_counter() - start


_builder = Builder(objects.ObjectCache(), Service())

#: What `build` has cost this process so far.
statistics = _builder.statistics


def build(sources: Sequence[KernelSource], target: Target) -> list[int]:
    """`Builder.build` with the user's object cache and the process's own compiling processes."""
    return _builder.build(sources, target)


def adopt(source: KernelSource, target: Target, data: bytes) -> int:
    """`Builder.adopt` with the process's own builder."""
    return _builder.adopt(source, target, data)


def objects_of(
    sources: Sequence[KernelSource], target: Target, others: frozenset[str] = frozenset()
) -> list[bytes]:
    """The finished objects themselves, from the cache or compiled, for what is not linked into this process."""
    return _builder.objects(sources, target, others)


def recall(name: str, target: Target) -> bytes | None:
    """What `keep` has kept under a name, by this process or another; None if there is nothing."""
    return _builder.cache.get(objects.key(name, target))


def keep(name: str, target: Target, data: bytes) -> None:
    """Keeps something beside the objects, for this target and version."""
    _builder.cache.put(objects.key(name, target), data)


def assembly(source: KernelSource, target: Target) -> str:
    """A kernel's assembly text (`TORTUROUS_DEBUG=5`)."""
    return _builder.service.assembly(Source(source.text, source.description), target)


def start() -> None:
    """Starts the compiling processes, so that they get ready while something else is done."""
    _builder.service.start()
