from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import hypothesis.extra.numpy as array_strategies
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from idx_files import CODES, REAL_ROOT, idx_bytes

from torturous.datasets.idx import read_idx

REAL = REAL_ROOT / "MNIST" / "raw"


@st.composite
def arrays(draw: st.DrawFn) -> npt.NDArray[Any]:
    dtype = np.dtype(draw(st.sampled_from(sorted(CODES))))
    shape = draw(array_strategies.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    return draw(array_strategies.arrays(dtype, shape))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("idx") / "array-idx"


@given(array=arrays(), compressed=st.booleans())
def test_round_trip(path: Path, array: npt.NDArray[Any], compressed: bool) -> None:
    content = idx_bytes(array)
    path.write_bytes(gzip.compress(content) if compressed else content)
    found = read_idx(path, array.dtype, array.shape)
    assert found.dtype == array.dtype and found.shape == array.shape
    assert found.dtype.isnative and found.flags.writeable
    assert found.tobytes() == array.tobytes()


@given(array=arrays(), compressed=st.booleans(), data=st.data())
def test_every_truncation_is_noticed(
    path: Path, array: npt.NDArray[Any], compressed: bool, data: st.DataObject
) -> None:
    content = idx_bytes(array)
    content = gzip.compress(content) if compressed else content
    kept = data.draw(st.integers(0, len(content) - 1))
    path.write_bytes(content[:kept])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: expected .*, found "):
        read_idx(path)
    assert path.read_bytes() == content[:kept]


@given(array=arrays(), extra=st.binary(min_size=1, max_size=20))
def test_bytes_after_the_end_are_noticed(path: Path, array: npt.NDArray[Any], extra: bytes) -> None:
    content = idx_bytes(array)
    path.write_bytes(content + extra)
    expected, found = f"{len(content):,} bytes", f"{len(content) + len(extra):,} bytes"
    with pytest.raises(ValueError, match=f"expected {expected} for .*, found {found}"):
        read_idx(path)


@given(magic=st.binary(min_size=4, max_size=4))
def test_wrong_magic(path: Path, magic: bytes) -> None:
    assume(not (magic[:2] == b"\0\0" and magic[2] in CODES.values()))
    assume(magic[:2] != b"\x1f\x8b")
    path.write_bytes(magic + bytes(100))
    with pytest.raises(ValueError, match=f"expected an IDX magic number .*, found 0x{magic.hex()}"):
        read_idx(path)


def test_extents_beyond_any_memory(path: Path) -> None:
    path.write_bytes(b"\0\0\x08\x04" + b"\xff" * 16)
    with pytest.raises(ValueError, match="found 20 bytes"):
        read_idx(path)


def test_broken_gzip_stream(path: Path) -> None:
    content = bytearray(gzip.compress(idx_bytes(np.arange(1000, dtype=np.int32))))
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="expected a complete gzip stream"):
        read_idx(path)


def test_expectations(path: Path) -> None:
    path.write_bytes(idx_bytes(np.zeros((3, 4), np.uint8)))
    with pytest.raises(ValueError, match=r"expected shape \(4, 3\), found shape \(3, 4\)"):
        read_idx(path, np.uint8, (4, 3))
    with pytest.raises(ValueError, match="expected elements of float32, found uint8"):
        read_idx(path, np.float32, (3, 4))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-idx"):
        read_idx(tmp_path / "nothing-idx")


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the MNIST files are not at {REAL}")
def test_the_real_files() -> None:
    images = read_idx(REAL / "t10k-images-idx3-ubyte", np.uint8, (10_000, 28, 28))
    labels = read_idx(REAL / "t10k-labels-idx1-ubyte", np.uint8, (10_000,))
    assert labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # The sum of the first image as the file stores it: 28 rows of 28 bytes after a header of 16.
    assert images[0].sum() == sum((REAL / "t10k-images-idx3-ubyte").read_bytes()[16 : 16 + 784])
