"""Which of a library's instruction sets the processor has, asked once, when weights are prepared.

From "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2, CPUID, and volume 1, 13.3 and 14.3: an
extension may be used if the processor has it and the operating system keeps its registers (XGETBV).
"""

from __future__ import annotations

from collections.abc import Sequence

from torturous.codegen.target import X86_LEVELS, Target

_BITS = {
    "sse3": (1, 2, 0), "ssse3": (1, 2, 9), "fma": (1, 2, 12), "sse4.1": (1, 2, 19), "sse4.2": (1, 2, 20),
    "popcnt": (1, 2, 23), "avx": (1, 2, 28), "f16c": (1, 2, 29),
    "bmi": (7, 1, 3), "avx2": (7, 1, 5), "bmi2": (7, 1, 8), "avx512f": (7, 1, 16), "avx512dq": (7, 1, 17),
    "avx512cd": (7, 1, 28), "avx512bw": (7, 1, 30), "avx512vl": (7, 1, 31),
    "lzcnt": (0x80000001, 2, 5),
}
"""Per feature: the leaf of CPUID, the register (of eax, ebx, ecx, edx) and the bit."""
_OSXSAVE = 27
_KEPT = {"avx2": 0x6, "avx512": 0xE6}
"""Registers that the system must keep, as bits of XCR0."""
_FOUR = "{ i32, i32, i32, i32 }"
_LEAF = "={ax},={bx},={cx},={dx},{ax},{cx},~{dirflag},~{fpsr},~{flags}"


def choice(name: str, targets: Sequence[Target]) -> str:
    """The function `i64 name_variant()` as LLVM IR: the first of the targets that this machine has, −1 for none.

    Machines other than x86-64 have what their architecture demands.
    """
    head = f"define internal i64 @{name}_variant() #0 {{\nentry:\n"
    asking = [target for target in targets if target.name in _KEPT]
    if not asking:
        return head + "  ret i64 0\n}\n"
    lines = []
    for leaf in (0, 1, 7, 0x80000001):
        tag = f"{leaf & 0xFF}" if leaf < 16 else "x"
        value = leaf - (1 << 32) if leaf >= 1 << 31 else leaf
        lines.append(f'  %leaf{tag} = call {_FOUR} asm sideeffect "cpuid", "{_LEAF}"(i32 {value}, i32 0)')
        for register in range(4):
            lines.append(f"  %leaf{tag}_{register} = extractvalue {_FOUR} %leaf{tag}, {register}")
    lines += [
        "  %enough = icmp uge i32 %leaf0_0, 7",
        f"  %saves_bit = and i32 %leaf1_2, {1 << _OSXSAVE}",
        "  %saves = icmp ne i32 %saves_bit, 0",
        "  %modern = and i1 %enough, %saves",
        f"  br i1 %modern, label %ask, label %{'old' if targets[-1].name not in _KEPT else 'none'}",
        "ask:",
        '  %kept = call { i32, i32 } asm sideeffect "xgetbv", "={ax},={dx},{cx},~{dirflag},~{fpsr},~{flags}"(i32 0)',
        "  %kept_low = extractvalue { i32, i32 } %kept, 0",
    ]
    for number, target in enumerate(asking):
        masks: dict[tuple[int, int], int] = {}
        for feature in X86_LEVELS[target.name]:
            if feature in _BITS:
                leaf, register, bit = _BITS[feature]
                masks[leaf, register] = masks.get((leaf, register), 0) | 1 << bit
        tests = [("%kept_low", _KEPT[target.name])]
        tests += [(f"%leaf{'x' if leaf > 16 else leaf}_{register}", mask) for (leaf, register), mask in masks.items()]
        result = "true"
        for position, (value_name, mask) in enumerate(tests):
            signed = mask - (1 << 32) if mask >= 1 << 31 else mask
            tag = f"{number}_{position}"
            lines.append(f"  %masked{tag} = and i32 {value_name}, {signed}")
            lines.append(f"  %has{tag} = icmp eq i32 %masked{tag}, {signed}")
            lines.append(f"  %all{tag} = and i1 {result}, %has{tag}")
            result = f"%all{tag}"
        following = f"else{number}"
        index = targets.index(target)
        lines += [f"  br i1 {result}, label %found{number}, label %{following}", f"found{number}:",
                  f"  ret i64 {index}", f"{following}:"]
    last = targets[-1].name not in _KEPT
    if last:
        lines += ["  br label %old", "old:", f"  ret i64 {len(targets) - 1}"]
    else:
        lines += ["  br label %none", "none:", "  ret i64 -1"]
    return head + "\n".join(lines) + "\n}\n"
