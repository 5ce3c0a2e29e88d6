"""Reading symbols of objects that LLVM made."""
from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torturous.codegen.objectfile import (
    ALLOWED,
    ObjectFileError,
    check,
    defined_symbols,
    undefined_symbols,
)
from torturous.codegen.service import Service, Source
from torturous.codegen.target import Target

# 64 and 32 bits, each of them with a symbol layout of its own; and WebAssembly.
TRIPLES = [
    "x86_64-unknown-linux-gnu",
    "aarch64-unknown-linux-gnu",
    "riscv32-unknown-elf",
    "thumbv7em-unknown-none-eabihf",
    "wasm32-unknown-unknown",
]


def target_of(triple: str) -> Target:
    return Target(
        name=triple, triple=triple, cpu="", features="", lanes=1, registers=1,
        has_fma=False, has_f16c=False, has_rounding=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def service():
    service = Service(helpers=2)
    yield service
    service.close()


def module(defined: set[str], private: set[str], called: set[str]) -> str:
    lines = [f"declare void @{name}()" for name in called]
    body = "".join(f"  call void @{name}()\n" for name in sorted(called | private))
    lines += [f"define internal void @{name}() noinline nounwind {{ ret void }}" for name in private]
    lines += [f"define void @{name}() nounwind {{\n{body}  ret void\n}}" for name in defined]
    return "\n".join(lines)


def names(random: random.Random, prefix: str, least: int) -> set[str]:
    lengths = [random.randint(1, 40) for _ in range(random.randint(least, 9))]
    return {prefix + "".join(random.choices("abc_19", k=length)) for length in lengths}


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("seed", range(4))
def test_symbols_are_those_of_the_module(service, triple, seed):
    chance = random.Random(seed)
    defined, private, called = names(chance, "d", 1), names(chance, "p", 0), names(chance, "c", 0)
    [data] = service.compile([Source(module(defined, private, called), "a module")], target_of(triple))
    assert undefined_symbols(data) == called
    assert defined_symbols(data) == defined


@pytest.fixture(scope="module")
def good(service) -> bytes:
    source = Source(module({"kernel"}, set(), {"memcpy", "memset"}), "copy")
    [data] = service.compile([source], target_of(TRIPLES[0]))
    return data


@pytest.fixture(scope="module")
def wasm(service) -> bytes:
    source = Source(module({"kernel"}, set(), {"memcpy", "memset"}), "copy")
    [data] = service.compile([source], target_of(TRIPLES[-1]))
    return data


def test_check_allows_what_is_published(good):
    plain = {"memcpy", "memset", "memmove"}
    assert plain < ALLOWED and all(name.startswith("__aeabi_mem") for name in ALLOWED - plain)
    check(good, "copy")


def test_check_names_symbol_and_operation(service):
    [data] = service.compile([Source(module({"k"}, set(), {"expf", "memcpy"}), "")], target_of(TRIPLES[0]))
    with pytest.raises(ObjectFileError, match=r"softmax at train\.py:7 calls expf, which") as caught:
        check(data, "softmax at train.py:7")
    assert "calls memcpy" not in str(caught.value)


ARCHIVE, MACH_O = b"!<arch>\n", b"\xcf\xfa\xed\xfe"


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"\x7fELF", ARCHIVE * 9, MACH_O * 99])
def test_other_formats_are_refused(data):
    with pytest.raises(ObjectFileError, match="relu at a.py:1: .*ELF"):
        check(data, "relu at a.py:1")


def test_linked_programs_are_refused(good):
    with pytest.raises(ObjectFileError, match="not a relocatable object"):
        undefined_symbols(good[:16] + b"\3\0" + good[18:])  # ET_DYN: a shared library


def test_truncated_objects_are_refused(good):
    for length in range(0, len(good), 7):
        with pytest.raises(ObjectFileError):
            undefined_symbols(good[:length])


@pytest.mark.parametrize("kind", ["good", "wasm"])
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_never_escapes_as_another_error(good, wasm, kind, data):
    whole = good if kind == "good" else wasm
    damaged = bytearray(whole)
    for position in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        assert isinstance(undefined_symbols(bytes(damaged)), set)
    except ObjectFileError:
        pass
