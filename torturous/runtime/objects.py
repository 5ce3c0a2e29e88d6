"""The object cache: compiled kernels on disk, so that a program starts warm the second time.

What is read from here will run, so an entry is trusted only if nobody else can have written it: the folder
and the entry belong to the user and are writable to no one else, and a digest binds the payload to its key,
which catches what a crash, a full disk or a copied file leaves behind. Whatever is wrong with the disk, the
cache then merely has nothing: computing goes on.
"""
from __future__ import annotations

import hashlib
import os
import secrets
import struct
import sys
import time
import warnings
from pathlib import Path

from torturous.codegen.target import Target

#: Part of every key and header: a change of either's meaning leaves older entries unread.
FORMAT_VERSION = 1
#: The cache is kept below this size.
DEFAULT_LIMIT = 1 << 30

_MAGIC = b"TORTOBJ\0"
_HEADER = struct.Struct("<8sIQ32s")  # magic, version, payload length, SHA-256 of key and payload
_SUFFIX = ".object"
_TEMPORARY = ".temporary"
_TRIM_EVERY = 256
_TRIM_TO = 0.8
_DAY = 86400.0
_HOUR = 3600.0


def key(text: str, target: Target) -> str:
    """The name of what compiling `text` for `target` gives: 64 hexadecimal digits."""
    digest = hashlib.sha256(f"{FORMAT_VERSION}|{target.key()}|".encode())
    digest.update(text.encode())
    return digest.hexdigest()


def default_folder() -> Path:
    """`$TORTUROUS_CACHE`, or `torturous` in the folder that the system has for a user's caches.

    Raises RuntimeError where the user has no home folder.
    """
    chosen = os.environ.get("TORTUROUS_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        base = Path(local) if local else Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        # The XDG Base Directory Specification: a path that is not absolute is to be ignored.
        shared = os.environ.get("XDG_CACHE_HOME", "")
        base = Path(shared) if os.path.isabs(shared) else Path.home() / ".cache"
    return base / "torturous"


class ObjectCache:
    """Objects by key, in one folder of files; safe under threads and processes that share the folder."""

    def __init__(self, folder: Path | None = None, limit: int = DEFAULT_LIMIT) -> None:
        """`folder` is created at the first use; by default `default_folder()`. `limit` is in bytes.

        A folder that others could write to is not used: there is one warning, and nothing is kept on disk.
        """
        if limit <= 0:
            raise ValueError(f"the cache's limit must be positive, got {limit} bytes")
        self._wanted = folder
        self._limit = limit
        self._folder: Path | None = None
        self._opened = False

    def get(self, key: str) -> bytes | None:
        """The object of this key, or None if there is none, or none that can be trusted."""
        path = self._path(key)
        if path is None:
            return None
        try:
            descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if not _private(status):
                    return None
                content = file.read()
            if status.st_mtime < time.time() - _DAY:
                os.utime(path)  # trimming goes by this time: what is used stays
        except OSError:
            return None
        return _unpack(key, content)

    def put(self, key: str, data: bytes) -> None:
        """Keeps an object under this key in place of what was there; does nothing if the disk will not."""
        path = self._path(key)
        if path is None:
            return
        # Complete or absent: the entry appears under its name only once it is written.
        temporary = path.with_name(f".{key}.{secrets.token_hex(8)}{_TEMPORARY}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _BINARY, 0o600)
            try:
                with open(descriptor, "wb") as file:
                    file.write(_pack(key, data))
                os.replace(temporary, path)
            except BaseException:
                os.unlink(temporary)
                raise
        except OSError:
            return
        if secrets.randbelow(_TRIM_EVERY) == 0:
            self.trim()

    def trim(self) -> None:
        """Removes the entries that were not used for longest, if all together exceed the limit."""
        folder = self._open()
        if folder is None:
            return
        entries = []
        try:
            for entry in os.scandir(folder):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(_SUFFIX):
                    entries.append((status.st_mtime, status.st_size, entry.path))
                elif entry.name.endswith(_TEMPORARY) and status.st_mtime < time.time() - _HOUR:
                    _remove(entry.path)  # of a process that was killed while writing
        except OSError:
            return  # somebody else is trimming
        total = sum(size for _, size, _ in entries)
        if total <= self._limit:
            return
        for _, size, path in sorted(entries):
            if total <= self._limit * _TRIM_TO:
                return
            _remove(path)
            total -= size

    def _path(self, key: str) -> Path | None:
        if len(key) != 64 or not set(key) <= set("0123456789abcdef"):
            raise ValueError(f"a cache key is 64 hexadecimal digits, got {key!r}")
        folder = self._open()
        return None if folder is None else folder / f"{key}{_SUFFIX}"

    def _open(self) -> Path | None:
        """The folder, made and examined at the first call; None if there is none to be used."""
        if not self._opened:
            self._folder = self._prepare()
            self._opened = True
        return self._folder

    def _prepare(self) -> Path | None:
        try:
            folder = default_folder() if self._wanted is None else self._wanted
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            status = folder.stat()
        except (OSError, RuntimeError):
            return None
        if not _private(status):
            warnings.warn(
                f"compiled kernels are not kept on disk: {folder} must belong to this user and be writable "
                "by nobody else (chmod 700), or TORTUROUS_CACHE must name another folder",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return folder


# Windows has neither symbolic links to fear here (they need a privilege) nor this flag, but text mode.
_NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
_BINARY: int = getattr(os, "O_BINARY", 0)


def _private(status: os.stat_result) -> bool:
    """Whether the user owns it and is the only one to write to it."""
    if sys.platform == "win32":
        return True  # a folder below %LOCALAPPDATA% has the user's own access list
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.sha256(bytes.fromhex(key) + data).digest()


def _pack(key: str, data: bytes) -> bytes:
    return _HEADER.pack(_MAGIC, FORMAT_VERSION, len(data), _digest(key, data)) + data


def _unpack(key: str, content: bytes) -> bytes | None:
    if len(content) < _HEADER.size:
        return None
    magic, version, length, digest = _HEADER.unpack_from(content)
    data = content[_HEADER.size :]
    if (magic, version, length) != (_MAGIC, FORMAT_VERSION, len(data)) or digest != _digest(key, data):
        return None
    return data


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # another process was faster
