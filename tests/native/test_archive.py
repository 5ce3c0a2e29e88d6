"""The archive writer against `ar`, and what it refuses."""
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from torturous.codegen.objectfile import ObjectFileError
from torturous.codegen.service import Service, Source
from torturous.codegen.target import host_target
from torturous.native.archive import archive

TARGET = host_target()


@pytest.fixture(scope="module")
def objects() -> list[bytes]:
    """Four objects; the first defines two symbols, the last none that others see."""
    texts = ["define i32 @a() {\n  ret i32 1\n}\ndefine hidden i32 @b() {\n  ret i32 2\n}"]
    texts += [f"define i32 @{name}() {{\n  ret i32 3\n}}" for name in ("c", "long_name_" * 9)]
    texts += ["define internal i32 @local() {\n  ret i32 4\n}"]
    service = Service(helpers=1)
    compiled = service.compile([Source(text, "a test") for text in texts], TARGET)
    service.close()
    return compiled


def test_ar_reads_it(objects: list[bytes], tmp_path: Path) -> None:
    if shutil.which("ar") is None or shutil.which("nm") is None:
        pytest.skip("needs ar and nm")
    padded = [data + b"\0" * odd for data, odd in zip(objects, (0, 1, 0, 1), strict=True)]
    members = [(f"m{index}.o", data) for index, data in enumerate(padded)]
    library = tmp_path / "lib.a"
    library.write_bytes(archive(members))
    listed = subprocess.run(["ar", "t", library], capture_output=True, text=True, check=True).stdout.split()
    assert listed == [name for name, _ in members]
    for name, data in members:
        assert subprocess.run(["ar", "p", library, name], capture_output=True, check=True).stdout == data
    index = subprocess.check_output(["nm", "--print-armap", library], text=True)
    for line in ("a in m0.o", "b in m0.o", "c in m1.o", f"{'long_name_' * 9} in m2.o"):
        assert line in index.splitlines()


def test_equal_objects_give_equal_archives(objects: list[bytes]) -> None:
    members = [(f"m{index}.o", data) for index, data in enumerate(objects)]
    assert archive(members) == archive(list(members))


def test_refusals(objects: list[bytes]) -> None:
    for name in ("", "a/b.o", "sixteen_letters.", "ö.o"):
        with pytest.raises(ValueError, match="member"):
            archive([(name, objects[0])])
    with pytest.raises(ValueError, match="two archive members"):
        archive([("a.o", objects[0]), ("a.o", objects[1])])
    with pytest.raises(ObjectFileError):
        archive([("a.o", b"no object at all")])
