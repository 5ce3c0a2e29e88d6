from __future__ import annotations

import gzip
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from idx_files import REAL_ROOT, idx_bytes, mnist_files, write

from torturous.datasets import KMNIST, MNIST, FashionMNIST
from torturous.datasets.download import fetch

TRAIN, TEST = 30, 20
FILES = mnist_files(TRAIN, TEST)


class Small(MNIST):
    """MNIST in everything but the number of images."""

    train_count = TRAIN
    test_count = TEST


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("train", [True, False])
def test_reads_both_halves(tmp_path: Path, train: bool, compressed: bool) -> None:
    write(tmp_path / "Small" / "raw", FILES, compressed)
    found = Small(tmp_path, train)
    prefix = "train" if train else "t10k"
    assert len(found) == (TRAIN if train else TEST)
    assert (found.data == FILES[f"{prefix}-images-idx3-ubyte"]).all()
    assert (found.targets == FILES[f"{prefix}-labels-idx1-ubyte"]).all() and found.targets.dtype == np.int64
    image, target = found[3]
    assert type(target) is int and tuple(image.shape) == (1, 28, 28)
    assert np.array_equal(image.numpy()[0], found.data[3] / np.float32(255))


def test_transforms(tmp_path: Path) -> None:
    write(tmp_path / "Small" / "raw", FILES, compressed=False)
    found = Small(str(tmp_path), transform=lambda image: int(image.sum()), target_transform=str)
    assert found[4] == (found.data[4].sum(), str(found.targets[4]))


@pytest.mark.parametrize("name", sorted(FILES))
def test_missing_file(tmp_path: Path, name: str) -> None:
    write(tmp_path / "Small" / "raw", {key: FILES[key] for key in FILES if key != name}, compressed=False)
    message = "^Dataset not found. You can use download=True to download it"
    with pytest.raises(RuntimeError, match=message) as error:
        Small(tmp_path, train=name.startswith("train"))
    assert name in str(error.value) and str(tmp_path) in str(error.value)
    Small(tmp_path, train=not name.startswith("train"))


KINDS = ["truncated", "long", "magic", "swapped", "count", "gzip"]


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize(
    ("part", "kind"),
    [(part, kind) for part in ("images-idx3", "labels-idx1") for kind in KINDS] + [("labels-idx1", "label")],
)
def test_damaged_file(tmp_path: Path, part: str, kind: str, download: bool) -> None:
    """The error names file, expectation and finding; the file stays as it is, download or not."""
    folder = tmp_path / "Small" / "raw"
    write(folder, FILES, compressed=kind == "gzip")
    name = f"train-{part}-ubyte"
    path = folder / (f"{name}.gz" if kind == "gzip" else name)
    good = path.read_bytes()
    images = part == "images-idx3"
    shape = (TRAIN, 28, 28) if images else (TRAIN,)
    damages = {
        "truncated": (good[:-1], f"expected {len(good):,} bytes .*, found {len(good) - 1:,} bytes"),
        "long": (good + b"\0", f"expected {len(good):,} bytes .*, found {len(good) + 1:,} bytes"),
        "magic": (b"\0\1" + good[2:], "expected an IDX magic number .*, found 0x0001"),
        "swapped": (
            idx_bytes(FILES["train-labels-idx1-ubyte" if images else "train-images-idx3-ubyte"]),
            rf"expected shape \({', '.join(map(str, shape))},?\), found shape",
        ),
        "count": (
            idx_bytes(np.zeros((TRAIN - 1, *shape[1:]), np.uint8)),
            rf"expected shape \({TRAIN}.*, found shape \({TRAIN - 1}",
        ),
        "gzip": (good[:-9], "expected a complete gzip stream, found"),
        "label": (idx_bytes(np.full(TRAIN, 10, np.uint8)), "expected labels below 10, found 10"),
    }
    bad, message = damages[kind]
    path.write_bytes(bad)
    with pytest.raises(ValueError, match=message) as error:
        Small(tmp_path, download=download)
    assert str(path) in str(error.value)
    assert path.read_bytes() == bad
    assert len(list(folder.iterdir())) == 4


@dataclass
class Mirror:
    """A server on this machine, and what it does when asked for a file."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    announced_extra: int = 0
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    monkeypatch.setenv("no_proxy", "*")
    state = Mirror()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            state.asked.append(name)
            if name not in state.files:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(state.files[name]) + state.announced_extra))
            self.end_headers()
            self.wfile.write(state.files[name])

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.address = f"http://127.0.0.1:{server.server_address[1]}/mnist/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def served(monkeypatch: pytest.MonkeyPatch, mirror: Mirror, files: dict[str, bytes]) -> None:
    """Let the mirror have `files` and let `Small` expect them there."""
    mirror.files = files
    monkeypatch.setattr(Small, "mirrors", (mirror.address + "elsewhere/missing/", mirror.address))
    monkeypatch.setattr(
        Small, "checksums", {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    )


COMPRESSED = {f"{name}.gz": gzip.compress(idx_bytes(array)) for name, array in FILES.items()}


def test_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Mirror, capsys: pytest.CaptureFixture[str]
) -> None:
    served(monkeypatch, mirror, COMPRESSED)
    found = Small(tmp_path, download=True)
    assert (found.data == FILES["train-images-idx3-ubyte"]).all()
    assert {path.name: path.read_bytes() for path in found.raw_folder.iterdir()} == COMPRESSED
    shown = capsys.readouterr().err
    assert all(name in shown for name in COMPRESSED) and "100%" in shown
    mirror.asked.clear()
    Small(tmp_path, train=False, download=True)
    assert mirror.asked == []


def test_download_fetches_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mirror: Mirror
) -> None:
    served(monkeypatch, mirror, COMPRESSED)
    folder = tmp_path / "Small" / "raw"
    write(folder, {"train-images-idx3-ubyte": FILES["train-images-idx3-ubyte"]}, compressed=False)
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(COMPRESSED["t10k-labels-idx1-ubyte.gz"])
    Small(tmp_path, download=True)
    assert sorted(mirror.asked) == ["t10k-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def test_second_mirror_after_a_missing_file(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files = {"present": b"content"}
    destination = tmp_path / "folder" / "present"
    fetch(["http://127.0.0.1:9/", mirror.address], destination, hashlib.md5(b"content").hexdigest())
    assert destination.read_bytes() == b"content" and len(list(destination.parent.iterdir())) == 1


@pytest.mark.parametrize("announced_extra", [0, 5])
def test_wrong_content_leaves_nothing_behind(tmp_path: Path, mirror: Mirror, announced_extra: int) -> None:
    """Wrong bytes, or a connection that ends early."""
    mirror.files = {"file": b"content"}
    mirror.announced_extra = announced_extra
    expected = hashlib.md5(b"content and more").hexdigest()
    with pytest.raises(RuntimeError, match="Error downloading file") as error:
        fetch([mirror.address], tmp_path / "file", expected)
    assert mirror.address + "file" in str(error.value)
    assert expected in str(error.value) and hashlib.md5(b"content").hexdigest() in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_every_failure_is_listed(tmp_path: Path, mirror: Mirror) -> None:
    with pytest.raises(RuntimeError) as error:
        fetch(["http://127.0.0.1:9/", mirror.address], tmp_path / "file", "0" * 32)
    assert "http://127.0.0.1:9/file: " in str(error.value)
    assert f"{mirror.address}file: HTTP Error 404" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_left_alone(tmp_path: Path, mirror: Mirror) -> None:
    mirror.files = {"file": b"other"}
    (tmp_path / "file").write_bytes(b"mine")
    fetch([mirror.address], tmp_path / "file", hashlib.md5(b"other").hexdigest())
    assert (tmp_path / "file").read_bytes() == b"mine" and mirror.asked == []


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, KMNIST])
def test_descriptions_are_complete(dataset: type[MNIST]) -> None:
    assert set(dataset.checksums) == set(COMPRESSED)
    assert all(len(md5) == 32 for md5 in dataset.checksums.values())
    assert len(set(dataset.checksums.values())) == 4 and len(set(dataset.classes)) == 10
    assert all(mirror.endswith("/") for mirror in dataset.mirrors)
    with pytest.raises(RuntimeError, match="Dataset not found"):
        dataset(Path(__file__).parent)


@pytest.mark.skipif(not (REAL_ROOT / "MNIST").is_dir(), reason=f"the MNIST files are not in {REAL_ROOT}")
def test_the_real_data_set() -> None:
    train, test = MNIST(REAL_ROOT), MNIST(REAL_ROOT, train=False)
    assert len(train) == 60_000 and len(test) == 10_000
    assert train.targets[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert abs(train.data.mean() / 255 - MNIST.mean) < 1e-4 and abs(train.data.std() / 255 - MNIST.std) < 1e-4
    images, targets = test.tensors(normalize=True)
    assert tuple(images.shape) == (10_000, 1, 28, 28) and targets.numpy()[0] == 7
