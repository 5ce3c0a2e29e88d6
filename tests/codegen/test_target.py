"""Target descriptions, and that LLVM makes of them what they promise."""
from __future__ import annotations

import platform
import re

import llvmlite.binding as llvm
import pytest

from torturous.codegen.objectfile import undefined_symbols
from torturous.codegen.service import Service, Source
from torturous.codegen.target import (
    X86_LEVELS,
    Target,
    compiler_version,
    host_target,
    neon_target,
    x86_target,
)

LINUX = "unknown-linux-gnu"
TARGETS = [*(x86_target(level, f"x86_64-{LINUX}") for level in X86_LEVELS), neon_target(f"aarch64-{LINUX}")]
by_name = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@pytest.fixture(scope="module")
def service():
    service = Service(helpers=1)
    yield service
    service.close()


def function(target: Target, result: str, body: str, declarations: str = "") -> Source:
    """`f` of a vector `%x` and a vector `%y` of `result`'s type."""
    text = f"""
define {result} @f({result} %x, {result} %y, ptr %memory) #0 {{
{body}
}}
{declarations}
attributes #0 = {{ {target.attributes()} }}
"""
    return Source(text, f"f for {target.name}")


@by_name
def test_one_vector_is_one_register(service, target):
    vector = f"<{target.lanes} x float>"
    source = function(target, vector, f"  %s = fadd {vector} %x, %y\n  ret {vector} %s")
    assembly = service.assembly(source, target)
    assert len(re.findall(r"\bv?f?add(?:ps)?\b", assembly)) == 1
    assert ("zmm" in assembly) == target.has_avx512


@by_name
def test_products_and_sums_are_not_contracted(service, target):
    vector = f"<{target.lanes} x float>"
    body = f"  %p = fmul {vector} %x, %y\n  %s = fadd {vector} %p, %y\n  ret {vector} %s"
    assembly = service.assembly(function(target, vector, body), target)
    assert re.search(r"\bv?f?mul(ps)?\b", assembly) and not re.search(r"fmadd|fmla", assembly)


@by_name
def test_what_a_target_has_needs_no_library(service, target):
    """Each `has_...` is true exactly where LLVM generates instructions instead of calls."""
    lanes = target.lanes
    vector = f"<{lanes} x float>"
    # The intrinsic's name for a vector of `lanes` floats ends in its type.
    cases = {
        "has_fma": (
            f"  %r = call {vector} @llvm.fma.v{lanes}f32({vector} %x, {vector} %y, {vector} %y)\n"
            f"  ret {vector} %r",
            f"declare {vector} @llvm.fma.v{lanes}f32({vector}, {vector}, {vector})",
        ),
        "has_rounding": (
            f"  %r = call {vector} @llvm.floor.v{lanes}f32({vector} %x)\n  ret {vector} %r",
            f"declare {vector} @llvm.floor.v{lanes}f32({vector})",
        ),
        "has_f16c": (
            f"  %h = fptrunc {vector} %x to <{lanes} x half>\n"
            f"  store <{lanes} x half> %h, ptr %memory, align 2\n  ret {vector} %y",
            "",
        ),
    }
    for field, (body, declarations) in cases.items():
        [data] = service.compile([function(target, vector, body, declarations)], target)
        assert getattr(target, field) == (not undefined_symbols(data)), field


@by_name
def test_attributes(target):
    attributes = target.attributes()
    assert "denormal" not in attributes
    assert f'"prefer-vector-width"="{target.vector_bits}"' in attributes
    assert f'"target-features"="{target.features}"' in attributes
    assert f'"target-features"="{target.features},+made-up"' in target.attributes(("made-up",))


def test_keys_tell_targets_and_versions_apart():
    assert len({target.key() for target in TARGETS}) == len(TARGETS)
    assert all(compiler_version() in target.key() for target in TARGETS)
    assert re.fullmatch(r"llvmlite \d+\.\d+\.\d+\S* LLVM \d+\.\d+\.\d+", compiler_version())


def test_levels_contain_each_other():
    widest_first = [set(features) for features in X86_LEVELS.values()]
    for wider, narrower in zip(widest_first, widest_first[1:]):  # noqa: B905
        assert wider > narrower


def test_host_target_refuses_what_it_cannot_run():
    for name in ("avx1024", "", "Native", "riscv"):
        with pytest.raises(ValueError, match="choose one of native, "):
            host_target(name)


def test_host_target_is_the_best_that_is_supported():
    supported = []
    for name in (*X86_LEVELS, "neon"):
        try:
            supported.append(host_target(name))
        except ValueError as error:
            assert name in str(error)
    assert host_target() == host_target("native") == supported[0]
    assert [target.lanes for target in supported] == sorted((t.lanes for t in supported), reverse=True)


@pytest.mark.parametrize("system", ["Darwin", "Windows"])
def test_other_systems_make_elf_too(service, system, monkeypatch):
    triple = {"Darwin": "arm64-apple-darwin23.1.0", "Windows": "x86_64-pc-windows-msvc"}[system]
    monkeypatch.setattr(llvm, "get_default_triple", lambda: triple)
    monkeypatch.setattr(platform, "machine", lambda: {"Darwin": "arm64", "Windows": "AMD64"}[system])
    host_target.cache_clear()
    try:
        target = host_target()
    finally:
        host_target.cache_clear()
    assert "23" not in target.triple
    [data] = service.compile([Source("define void @f() { ret void }", "nothing")], target)
    assert data[:4] == b"\x7fELF"
