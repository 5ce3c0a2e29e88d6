"""From IR to functions that run: building, loading, and what happens when a step fails."""
from __future__ import annotations

import ctypes
import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from torturous.codegen.objectfile import ObjectFileError
from torturous.codegen.service import CompilationError, Service, Source
from torturous.codegen.target import Target, host_target
from torturous.runtime import build as module
from torturous.runtime import objects
from torturous.runtime.build import Builder, KernelSource
from torturous.runtime.linker import LinkError, link

ROOT = Path(module.__file__).parents[2]
ABORTING = """
define i32 @f() {
  %r = call i32 @llvm.amdgcn.workitem.id.x()
  ret i32 %r
}
declare i32 @llvm.amdgcn.workitem.id.x()
"""


@pytest.fixture(scope="module")
def service():
    service = Service(helpers=2)
    yield service
    service.close()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def new_builder(folder, service):
    """Makes builders as separate processes would have them: one cache folder, nothing else in common."""
    return lambda: Builder(objects.ObjectCache(folder), service)


def scaling(symbol: str, factor: float, target: Target | None = None) -> KernelSource:
    """`symbol(array, count)`: multiplies float32 values in place, a vector at a time."""
    target = target or host_target()
    vector = f"<{target.lanes} x float>"
    [constant] = np.array([factor], np.float32).astype(np.float64).view(np.uint64)
    elements = ", ".join(f"float 0x{constant:016X}" for _ in range(target.lanes))
    text = f"""
define void @{symbol}(ptr %array, i64 %count) #0 {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %place = getelementptr float, ptr %array, i64 %i
  %value = load {vector}, ptr %place, align 4
  %scaled = fmul {vector} %value, <{elements}>
  store {vector} %scaled, ptr %place, align 4
  %next = add i64 %i, {target.lanes}
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret void
}}
attributes #0 = {{ {target.attributes()} }}
"""
    return KernelSource(symbol, text, f"mul by {factor} at train.py:3")


def scale(address: int, values: np.ndarray) -> np.ndarray:
    result = values.copy()
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)(result.ctypes.data, result.size)
    return result


def integer_function(address: int):
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)


@pytest.mark.parametrize("level", ["native", "avx512", "avx2", "sse2", "neon"])
def test_kernels_run(new_builder, level):
    try:
        target = host_target(level)
    except ValueError:
        pytest.skip(f"this machine has no {level}")
    chance = np.random.default_rng(0)
    factors = chance.normal(size=5).astype(np.float32)
    values = chance.normal(size=160).astype(np.float32)
    values[:16] = np.float32(1e-40)  # subnormal: not flushed
    addresses = new_builder().build([scaling(f"s{i}", f, target) for i, f in enumerate(factors)], target)
    for address, factor in zip(addresses, factors, strict=True):
        np.testing.assert_array_equal(scale(address, values), values * factor)


def test_a_kernel_is_compiled_once_then_loaded_then_remembered(new_builder):
    sources = [scaling(f"k{i}", i + 0.5) for i in range(4)]
    sources.append(sources[0])  # twice in one call
    first = new_builder()
    addresses = first.build(sources, host_target())
    assert (first.statistics.kernels_compiled, first.statistics.cache_hits) == (4, 0)
    assert first.statistics.compile_seconds > 0 and first.statistics.link_seconds > 0
    assert addresses[0] == addresses[4] and len(set(addresses)) == 4
    assert first.build(sources, host_target()) == addresses
    assert (first.statistics.kernels_compiled, first.statistics.memory_hits) == (4, 5)
    second = new_builder()
    values = np.arange(32, dtype=np.float32)
    for i, address in enumerate(second.build(sources[:4], host_target())):
        np.testing.assert_array_equal(scale(address, values), values * np.float32(i + 0.5))
    assert (second.statistics.kernels_compiled, second.statistics.cache_hits) == (0, 4)
    assert second.statistics.compile_seconds == 0


def test_equal_symbols_of_different_kernels_do_not_clash(new_builder):
    one, two = new_builder().build([scaling("same", 2.0), scaling("same", 3.0)], host_target())
    values = np.ones(32, np.float32)
    assert scale(one, values)[0] == 2.0 and scale(two, values)[0] == 3.0


def test_every_kind_of_reference_is_resolved(new_builder):
    """Constants, a mutable global, a table of functions, a jump table and the allowed library functions."""
    chance = random.Random(1)
    table = [chance.randrange(1000) for _ in range(64)]
    cases = "".join(f"    i64 {i}, label %case{i}\n" for i in range(64))
    blocks = "".join(f"case{i}:\n  call void @touch(i64 {i})\n  br label %join\n" for i in range(64))
    incoming = ", ".join(f"[ {value}, %case{i} ]" for i, value in enumerate(table))
    text = f"""
@state = internal global i64 5
@functions = internal constant [2 x ptr] [ptr @double, ptr @triple]
define internal i64 @double(i64 %x) noinline {{
  %r = mul i64 %x, 2
  ret i64 %r
}}
define internal i64 @triple(i64 %x) noinline {{
  %r = mul i64 %x, 3
  ret i64 %r
}}
define internal void @touch(i64 %x) noinline {{
  %before = load i64, ptr @state
  %after = add i64 %before, %x
  store i64 %after, ptr @state
  ret void
}}
define i64 @everything(i64 %x) {{
entry:
  %memory = alloca [100 x i8]
  %copy = alloca [100 x i8]
  %length = add i64 %x, 1
  call void @llvm.memset.p0.i64(ptr %memory, i8 7, i64 %length, i1 false)
  call void @llvm.memcpy.p0.p0.i64(ptr %copy, ptr %memory, i64 %length, i1 false)
  call void @llvm.memmove.p0.p0.i64(ptr %copy, ptr %memory, i64 %length, i1 false)
  %last = getelementptr i8, ptr %copy, i64 %x
  %byte = load i8, ptr %last
  %seven = zext i8 %byte to i64
  switch i64 %x, label %join [
{cases}  ]
{blocks}
join:
  %chosen = phi i64 [ -1, %entry ], {incoming}
  %odd = and i64 %x, 1
  %slot = getelementptr ptr, ptr @functions, i64 %odd
  %function = load ptr, ptr %slot
  %result = call i64 %function(i64 %chosen)
  %state = load i64, ptr @state
  %sum = add i64 %result, %state
  %all = add i64 %sum, %seven
  ret i64 %all
}}
declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)
declare void @llvm.memmove.p0.p0.i64(ptr, ptr, i64, i1)
"""
    [address] = new_builder().build([KernelSource("everything", text, "everything")], host_target())
    state = 5
    for x in chance.sample(range(64), 64):
        state += x
        assert integer_function(address)(x) == table[x] * (2 + x % 2) + state + 7


def test_calls_to_unpublished_functions_are_refused_and_not_kept(new_builder, folder):
    text = """
declare float @expf(float)
define float @f(float %x) {
  %r = call float @expf(float %x)
  ret float %r
}
"""
    for _ in range(2):
        builder = new_builder()
        with pytest.raises(ObjectFileError, match=r"softmax at train\.py:7 calls expf"):
            builder.build([KernelSource("f", text, "softmax at train.py:7")], host_target())
        assert builder.statistics.cache_hits == 0
    assert not list(folder.iterdir())


def test_unresolved_symbols_are_an_exception(service, capfd):
    text = "declare void @nobody_has_this()\ndefine void @f() { call void @nobody_has_this() \n ret void }"
    [data] = service.compile([Source(text, "f")], host_target())
    for _ in range(2):
        with pytest.raises(LinkError, match="nobody_has_this"):
            link(data, "f")
    assert capfd.readouterr() == ("", "")


def test_loading_what_is_no_object_is_an_exception(service):
    [data] = service.compile([Source("define void @f() { ret void }", "f")], host_target())
    with pytest.raises(LinkError, match="does not define g"):
        link(data, "g")
    for damaged in (b"", b"garbage" * 99, data[:100], data[:-10]):
        with pytest.raises(LinkError):
            link(damaged, "f")
    assert link(data, "f")


def test_an_abort_names_the_operation_and_keeps_the_others(new_builder):
    good = [scaling(f"k{i}", i + 2.5) for i in range(3)]
    builder = new_builder()
    with pytest.raises(CompilationError, match=r"gelu at model\.py:31.*Cannot select"):
        builder.build([good[0], KernelSource("f", ABORTING, "gelu at model.py:31"), *good[1:]], host_target())
    after = new_builder()
    after.build(good, host_target())
    assert (after.statistics.kernels_compiled, after.statistics.cache_hits) == (0, 3)


def damage_file(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def damage_object(path: Path, data: bytes) -> None:
    objects.ObjectCache(path.parent).put(path.stem, b"not an object")


def other_object(path: Path, data: bytes) -> None:
    objects.ObjectCache(path.parent).put(path.stem, data.replace(b"wanted\0", b"others\0"))


@pytest.mark.parametrize("damage", [damage_file, damage_object, other_object])
def test_a_cached_object_that_cannot_be_loaded_is_made_again(new_builder, damage):
    source = scaling("wanted", 4.0)
    new_builder().build([source], host_target())
    cache = new_builder().cache
    key = objects.key(source.text, host_target())
    good = cache.get(key)
    assert good is not None
    damage(cache._path(key), good)
    repairing = new_builder()
    [address] = repairing.build([source], host_target())
    assert scale(address, np.ones(32, np.float32))[31] == 4.0
    assert (repairing.statistics.kernels_compiled, repairing.statistics.cache_hits) == (1, 0)
    assert cache.get(key) == good


def test_building_works_without_a_disk(tmp_path, service):
    (tmp_path / "file").write_text("")
    builder = Builder(objects.ObjectCache(tmp_path / "file" / "cache"), service)
    [address] = builder.build([scaling("k", 5.0)], host_target())
    assert scale(address, np.ones(32, np.float32))[0] == 5.0


def test_threads_may_build_at_once(new_builder):
    builder = new_builder()
    failures = []

    def use(number: int) -> None:
        for repeat in range(3):
            factor = float(number * 10 + repeat + 1)
            shared = scaling("shared", 0.5)
            own, common = builder.build([scaling("own", factor), shared], host_target())
            ones = np.ones(32, np.float32)
            if scale(own, ones)[0] != factor or scale(common, ones)[0] != 0.5:
                failures.append(factor)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not failures and not any(thread.is_alive() for thread in threads)


def python(program: str, cache: Path) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, "TORTUROUS_CACHE": str(cache)},
    )  # fmt: skip
    assert result.returncode == 0 and result.stderr == "", result.stderr
    return result.stdout


PROGRAM = """
import ctypes, os
from torturous.codegen.target import host_target
from torturous.runtime.build import KernelSource, build, start, statistics
def add(number):
    text = f"define i64 @f(i64 %x) {{ %r = add i64 %x, {number}\\n ret i64 %r }}"
    [address] = build([KernelSource("f", text, "add")], host_target())
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)
"""


def test_the_process_wide_builder_starts_warm_the_second_time(folder):
    program = PROGRAM + "print(add(42)(100), statistics.kernels_compiled, statistics.cache_hits)"
    assert python(program, folder).split() == ["142", "1", "0"]
    assert python(program, folder).split() == ["142", "0", "1"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_builds_too(folder):
    program = PROGRAM + """
start()
before = add(1)
child = os.fork()
if child == 0:
    os._exit(int(not (before(1) == 2 and add(1)(1) == 2 and add(5)(1) == 6)))
assert os.waitpid(child, 0)[1] == 0
print(before(1), add(5)(2), statistics.kernels_compiled, statistics.cache_hits)
"""
    # The parent finds on disk what its child has compiled.
    assert python(program, folder).split() == ["2", "7", "1", "1"]
