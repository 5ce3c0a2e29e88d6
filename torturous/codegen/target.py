"""What the code generator must know about the machine it generates for.

A target is a *level* of an instruction set, never a processor model: processor names are misreported in
virtual machines, and objects that depend on odd features of one host could not be shared. Each level fixes
its features.
"""
from __future__ import annotations

import platform
import re
from dataclasses import dataclass, replace
from functools import cache

_SSE2 = ("sse", "sse2", "fxsr", "cx8")
_AVX2 = _SSE2 + (
    "sse3", "ssse3", "sse4.1", "sse4.2", "popcnt", "avx", "avx2", "fma", "f16c", "bmi", "bmi2", "lzcnt",
)  # fmt: skip
_AVX512 = _AVX2 + ("avx512f", "avx512cd", "avx512dq", "avx512bw", "avx512vl")

#: The x86-64 levels, widest first.
X86_LEVELS = {"avx512": _AVX512, "avx2": _AVX2, "sse2": _SSE2}

_X86_MACHINES = {"x86_64", "amd64"}
_ARM_MACHINES = {"aarch64", "arm64"}


@dataclass(frozen=True)
class Target:
    """One machine to generate code for.

    `lanes` is the number of float32 values in the widest vector register and `registers` the number of vector
    registers. A `has_...` field says what the machine does natively; where it is false, the emitter lowers
    the operation itself, because LLVM would call a library function.
    """

    name: str
    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int
    has_fma: bool = False
    #: Conversion between vectors of half and float.
    has_f16c: bool = False
    #: floor, ceil, trunc and round-half-to-even of vectors.
    has_rounding: bool = False
    #: Width of an address.
    pointer_bits: int = 64
    #: Quotients of 64-bit integers; without them, sizes and positions are divided as 32-bit numbers, which they are
    #: where addresses have 32 bits.
    has_wide_division: bool = True
    #: Arithmetic of float64; without it, it is a call for each operation.
    has_doubles: bool = True
    #: Whether a load from an address that is no multiple of its size may fail.
    strict_alignment: bool = False
    #: LLVM's name of the calling convention, where the triple does not tell it.
    abi: str = ""
    #: "static" for objects that only a linker places.
    relocation: str = "pic"
    has_avx512: bool = False
    #: Beyond the level's features: the machine has them, but a function must ask for them in `attributes`.
    has_avx512_bf16: bool = False
    has_avx512_fp16: bool = False
    has_amx_bf16: bool = False

    @property
    def vector_bits(self) -> int:
        """Width of the widest vector register in bits."""
        return self.lanes * 32

    @property
    def architecture(self) -> str:
        """The first part of the triple."""
        return self.triple.partition("-")[0]

    def attributes(self, extra: tuple[str, ...] = ()) -> str:
        """The text between the braces of `attributes #0 = { ... }` for every function made for this target.

        `extra` names further features, for example `("avx512bf16",)`, which the caller has found in a
        `has_...` field. Subnormal numbers are left as IEEE 754 has them: there is no flush attribute.
        """
        features = ",".join([self.features, *(f"+{feature}" for feature in extra)])
        return (
            f'nounwind "frame-pointer"="none" "target-cpu"="{self.cpu}" "target-features"="{features}" '
            f'"prefer-vector-width"="{self.vector_bits}" "min-legal-vector-width"="{self.vector_bits}"'
        )

    def key(self) -> str:
        """What objects depend on besides their IR, for cache keys: target and versions."""
        parts = (self.name, self.triple, self.cpu, self.features, self.abi, self.relocation, compiler_version())
        return "|".join(parts)


@cache
def compiler_version() -> str:
    """The versions of llvmlite and of the LLVM inside it, for example `llvmlite 0.50.0 LLVM 22.1.0`."""
    import llvmlite
    import llvmlite.binding as llvm

    return f"llvmlite {llvmlite.__version__} LLVM {'.'.join(map(str, llvm.llvm_version_info))}"


def x86_target(level: str, triple: str, host_features: frozenset[str] = frozenset()) -> Target:
    """The target of one of `X86_LEVELS`; `host_features`, under LLVM's names, decide the `has_...` extras."""
    avx512 = level == "avx512"
    modern = level != "sse2"
    return Target(
        name=level,
        triple=triple,
        cpu="x86-64",
        features=",".join(f"+{feature}" for feature in X86_LEVELS[level]),
        lanes={"avx512": 16, "avx2": 8, "sse2": 4}[level],
        registers=32 if avx512 else 16,
        has_fma=modern,
        has_f16c=modern,
        has_rounding=modern,
        has_avx512=avx512,
        has_avx512_bf16=avx512 and "avx512bf16" in host_features,
        has_avx512_fp16=avx512 and "avx512fp16" in host_features,
        has_amx_bf16=avx512 and {"amx-tile", "amx-bf16"} <= host_features,
    )


def neon_target(triple: str, name: str = "neon") -> Target:
    """64-bit ARM with its mandatory vector unit."""
    return Target(name, triple, "generic", "+neon", lanes=4, registers=32, has_fma=True, has_f16c=True,
                  has_rounding=True)


#: Targets that are never this machine's own choice, by the names that `export_targets` takes.
_CROSS = {target.name: target for target in (
    neon_target("aarch64-unknown-linux-gnu", "aarch64-linux"),
    # RISC-V with Linux and no vector unit (RV64GC). Without the ABI's name its floats would be soft.
    Target("riscv64-linux", "riscv64-unknown-linux-gnu", "generic-rv64", "+m,+a,+f,+d,+c", lanes=1, registers=32,
           has_fma=True, abi="lp64d"),
    # WebAssembly with fixed-width vectors and bulk memory, which every browser and Node have since 2021.
    Target("wasm32", "wasm32-unknown-unknown", "generic",
           "+simd128,+bulk-memory,+bulk-memory-opt,+sign-ext,+nontrapping-fptoint,+mutable-globals", lanes=4,
           registers=16, has_rounding=True, pointer_bits=32, relocation="static"),
    # Cortex-M4 and M7 with a single-precision unit and the hard-float convention. `unknown` in the triple matters:
    # `thumbv7em-none-eabihf` is read as soft float.
    Target("thumbv7em", "thumbv7em-unknown-none-eabihf", "cortex-m4", "+vfp4d16sp,+fp16", lanes=1, registers=32,
           has_fma=True, pointer_bits=32, has_wide_division=False, has_doubles=False, strict_alignment=True,
           relocation="static"),
)}


@cache
def host_target(name: str = "native") -> Target:
    """The target for this machine: its best level, or the one that `name` asks for.

    `name` is `"native"`, `"avx512"`, `"avx2"` or `"sse2"` on x86-64 and `"native"` or `"neon"` on 64-bit ARM.
    Raises ValueError for a level that is unknown or that this machine lacks, and NotImplementedError on a
    machine of another architecture.
    """
    machine = platform.machine().lower()
    if machine in _X86_MACHINES:
        features = _host_features()
        levels = [level for level in X86_LEVELS if level == "sse2" or features.issuperset(X86_LEVELS[level])]
    elif machine in _ARM_MACHINES:
        levels = ["neon"]
    else:
        raise NotImplementedError(f"no code generation for {machine!r}; supported are x86-64 and 64-bit ARM")
    if name not in ("native", *levels):
        choices = ", ".join(("native", *levels))
        raise ValueError(f"target {name!r} is unknown or not supported here; choose one of {choices}")
    level = levels[0] if name == "native" else name
    return neon_target(_host_triple()) if level == "neon" else x86_target(level, _host_triple(), features)


def export_targets(name: str | None) -> tuple[Target, ...]:
    """What a library is made for: None for every level of this machine's architecture, widest first, of which the
    library chooses at run time; "native" for this machine's best; else one target, which need not be this machine's.

    Raises ValueError for a name that is unknown.
    """
    triple = _host_triple()
    x86 = triple if triple.startswith("x86_64") else "x86_64-unknown-linux-gnu"
    if name is None:
        if triple.startswith("x86_64"):
            return tuple(x86_target(level, triple) for level in X86_LEVELS)
        return (host_target(),)
    if name == "native":
        # A library asks the processor for a level, not for what lies beyond.
        return (replace(host_target(), has_avx512_bf16=False, has_avx512_fp16=False, has_amx_bf16=False),)
    if name in X86_LEVELS:
        return (x86_target(name, x86),)
    if name == "neon" and not triple.startswith("x86_64"):
        return (neon_target(triple),)
    if name in _CROSS:
        return (_CROSS[name],)
    choices = ", ".join(["native", *X86_LEVELS, *_CROSS])
    raise ValueError(f"there is no target {name!r} to export for; choose one of {choices}, or None for this machine")


def _host_features() -> frozenset[str]:
    """The processor's usable features under LLVM's names; empty where LLVM cannot tell."""
    import llvmlite.binding as llvm

    try:
        found = llvm.get_host_cpu_features()
    except RuntimeError:
        return frozenset()
    return frozenset(feature for feature, present in found.items() if present)


def _host_triple() -> str:
    """This machine's triple, asking for ELF objects everywhere.

    ORC loads ELF objects on every system, so that there is one object format to read and check. The version
    after `darwin` is dropped: objects do not depend on it.
    """
    import llvmlite.binding as llvm

    triple = re.sub(r"darwin[\d.]+", "darwin", llvm.get_default_triple())
    foreign = "darwin" in triple or "windows" in triple
    return f"{triple}-elf" if foreign else triple
