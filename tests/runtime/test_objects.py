"""The object cache on disk: what it keeps, and everything it must not trust."""
from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import textwrap
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from torturous.codegen.target import neon_target, x86_target
from torturous.runtime import objects
from torturous.runtime.objects import ObjectCache

ROOT = Path(objects.__file__).parents[2]
TARGET = x86_target("avx2", "x86_64-unknown-linux-gnu")
KEY = objects.key("text", TARGET)
OTHER = objects.key("other text", TARGET)
posix = pytest.mark.skipif(os.name == "nt", reason="owners and modes as POSIX has them")


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "some" / "where"


@pytest.fixture
def cache(folder) -> ObjectCache:
    return ObjectCache(folder)


def entry(folder: Path, key: str = KEY) -> Path:
    return folder / f"{key}.object"


def test_what_is_put_is_got(cache, folder):
    @settings(max_examples=15, deadline=None)
    @given(st.dictionaries(st.text(max_size=20), st.binary(max_size=300), max_size=5))
    def check(contents):
        for text, data in contents.items():
            cache.put(objects.key(text, TARGET), data)
        for text, data in contents.items():
            assert cache.get(objects.key(text, TARGET)) == data
            assert ObjectCache(folder).get(objects.key(text, TARGET)) == data

    check()
    assert cache.get(objects.key("never put" * 9, TARGET)) is None


def test_keys_tell_text_and_target_apart():
    narrower, arm = x86_target("sse2", TARGET.triple), neon_target(TARGET.triple)
    targets = [TARGET, narrower, arm, replace(TARGET, features="+sse2")]
    keys = {objects.key(text, target) for text in ("", "a", "b", "ä") for target in targets}
    assert len(keys) == 16
    assert all(len(key) == 64 for key in keys)


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "a" * 63, "A" * 64, "/" * 64])
def test_keys_that_are_none(cache, key):
    for use in (cache.get, lambda key: cache.put(key, b"")):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            use(key)


@posix
def test_folder_and_entries_are_private(cache, folder):
    before = os.umask(0)
    try:
        cache.put(KEY, b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(entry(folder).stat().st_mode) == 0o600
    assert [path.name for path in folder.iterdir()] == [entry(folder).name]


def test_every_damage_is_noticed_and_repaired(cache, folder):
    data = bytes(range(50))
    cache.put(KEY, data)
    good = entry(folder).read_bytes()
    damages = [b"", good + b"\0", good[1:], b"\0" * len(good), good[:-1] + b"!"]
    damages += [good[:length] for length in range(0, len(good), 9)]
    damages += [good[:i] + bytes([good[i] ^ 1 << i % 8]) + good[i + 1 :] for i in range(len(good))]
    for damaged in damages:
        entry(folder).write_bytes(damaged)
        assert cache.get(KEY) is None
    cache.put(KEY, data)
    assert cache.get(KEY) == data


def test_an_entry_under_another_name_is_not_trusted(cache, folder):
    cache.put(KEY, b"data")
    entry(folder, OTHER).write_bytes(entry(folder).read_bytes())
    entry(folder, OTHER).chmod(0o600)
    assert cache.get(OTHER) is None
    assert cache.get(KEY) == b"data"


@posix
def test_links_are_neither_read_nor_written_through(cache, folder, tmp_path):
    cache.put(KEY, b"data")
    elsewhere = tmp_path / "elsewhere"
    os.rename(entry(folder), elsewhere)
    before = elsewhere.read_bytes()
    entry(folder).symlink_to(elsewhere)
    assert cache.get(KEY) is None
    cache.put(KEY, b"new")
    assert cache.get(KEY) == b"new"
    assert elsewhere.read_bytes() == before and not entry(folder).is_symlink()


@posix
@pytest.mark.parametrize("mode", [0o660, 0o606, 0o666])
def test_entries_that_others_can_write_are_not_trusted(cache, folder, mode):
    cache.put(KEY, b"data")
    entry(folder).chmod(mode)
    assert cache.get(KEY) is None
    cache.put(KEY, b"data")
    assert cache.get(KEY) == b"data"


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777])
def test_a_folder_that_others_can_write_is_refused_with_one_warning(folder, mode):
    folder.mkdir(parents=True)
    folder.chmod(mode)
    cache = ObjectCache(folder)
    with pytest.warns(RuntimeWarning, match=str(folder)) as caught:
        cache.put(KEY, b"data")
        assert cache.get(KEY) is None
        cache.put(OTHER, b"data")
    assert len(caught) == 1
    assert list(folder.iterdir()) == []


@posix
@pytest.mark.skipif(os.name != "nt" and os.geteuid() != 0, reason="only root can give a folder away")
def test_what_another_user_owns_is_refused(folder):
    cache = ObjectCache(folder)
    cache.put(KEY, b"data")
    os.chown(entry(folder), 12345, -1)
    assert cache.get(KEY) is None
    os.chown(folder, 12345, -1)
    with pytest.warns(RuntimeWarning, match="belong to this user"):
        assert ObjectCache(folder).get(KEY) is None


def test_a_disk_that_refuses_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    nowhere = ObjectCache(tmp_path / "file" / "folder")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        nowhere.put(KEY, b"data")
        assert nowhere.get(KEY) is None
        nowhere.trim()
        gone = ObjectCache(tmp_path / "gone")
        gone.put(KEY, b"data")
        entry(tmp_path / "gone").unlink()
        (tmp_path / "gone").rmdir()
        gone.put(KEY, b"data")
        assert gone.get(KEY) is None


@pytest.mark.parametrize("name", ["open", "replace"])
def test_a_full_disk_is_no_error_and_leaves_nothing(cache, folder, monkeypatch, name):
    cache.put(OTHER, b"data")

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(objects.os, name, full)
        cache.put(KEY, b"data")
    assert [path.name for path in folder.iterdir()] == [entry(folder, OTHER).name]
    assert cache.get(KEY) is None and cache.get(OTHER) == b"data"


def test_two_processes_write_the_same_entries(cache, folder):
    program = textwrap.dedent("""
        import sys, time
        from pathlib import Path
        from torturous.codegen.target import x86_target
        from torturous.runtime import objects
        folder, filling = Path(sys.argv[1]), sys.argv[2].encode()
        cache = objects.ObjectCache(folder)
        target = x86_target("avx2", "x86_64-unknown-linux-gnu")
        keys = [objects.key(f"text {i}", target) for i in range(8)]
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            for key in keys:
                cache.put(key, filling * 20000)
                found = cache.get(key)
                assert found is not None and found in (b"a" * 20000, b"b" * 20000)
    """)
    writers = [
        subprocess.Popen([sys.executable, "-c", program, str(folder), filling], cwd=ROOT) for filling in "ab"
    ]
    keys = [objects.key(f"text {i}", TARGET) for i in range(8)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        seen.update(cache.get(key) for key in keys)
    assert [writer.wait() for writer in writers] == [0, 0]
    assert seen - {None} == {b"a" * 20000, b"b" * 20000}
    assert sorted(path.name for path in folder.iterdir()) == sorted(entry(folder, key).name for key in keys)


def test_trimming_removes_what_was_not_used_for_longest(folder, monkeypatch):
    monkeypatch.setattr(objects, "_TRIM_EVERY", 1 << 60)  # Putting trims now and then, by chance.
    cache = ObjectCache(folder, limit=100_000)
    keys = [objects.key(f"text {i}", TARGET) for i in range(20)]
    now = time.time()
    for age, key in enumerate(keys):
        cache.put(key, b"x" * 10_000)
        os.utime(entry(folder, key), (0, now - (age + 2) * 86400))
    assert cache.get(keys[-1]) is not None  # the oldest, but it is used again
    cache.trim()
    kept = [key for key in keys if entry(folder, key).exists()]
    assert kept == [*keys[: len(kept) - 1], keys[-1]]
    assert 50_000 < sum(path.stat().st_size for path in folder.iterdir()) <= 100_000
    cache.trim()
    assert [key for key in keys if entry(folder, key).exists()] == kept


def test_trimming_comes_with_putting(folder, monkeypatch):
    monkeypatch.setattr(objects, "_TRIM_EVERY", 1)
    cache = ObjectCache(folder, limit=5_000)
    for i in range(30):
        cache.put(objects.key(f"text {i}", TARGET), b"x" * 1_000)
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 5_000
    with pytest.raises(ValueError, match="limit"):
        ObjectCache(folder, limit=0)


def test_trimming_clears_what_killed_writers_left(cache, folder):
    cache.put(KEY, b"data")
    old, new = folder / ".old.temporary", folder / ".new.temporary"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 7200))
    cache.trim()
    assert sorted(folder.iterdir()) == sorted([new, entry(folder)])


def test_the_default_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("TORTUROUS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert objects.default_folder() == tmp_path / ".cache" / "torturous"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert objects.default_folder() == tmp_path / ".cache" / "torturous"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert objects.default_folder() == tmp_path / "x" / "torturous"
    monkeypatch.setenv("TORTUROUS_CACHE", str(tmp_path / "mine"))
    assert objects.default_folder() == tmp_path / "mine"
    ObjectCache().put(KEY, b"data")
    assert entry(tmp_path / "mine").exists()
