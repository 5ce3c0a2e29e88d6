"""Fetching one data file from the first mirror that has it."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
import uuid
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

_CHUNK_BYTES = 1 << 16
_TIMEOUT_SECONDS = 30.0


def fetch(mirrors: Sequence[str], destination: Path, md5: str) -> None:
    """Download `destination.name` from one of `mirrors` (addresses that end in "/") to `destination`.

    Shows a progress bar. The content arrives under a temporary name in the same folder and gets its own name
    once its MD5 checksum is right, so whatever happens, `destination` is absent or whole. A file that is
    already there is left alone.

    Raises RuntimeError, with one line for each mirror, if none delivers the file.
    """
    if destination.exists():
        return
    destination.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for mirror in mirrors:
        address = mirror + destination.name
        partial = destination.with_name(f"{destination.name}.{uuid.uuid4().hex}.part")
        try:
            size, found = _save(address, partial)
            if found == md5:
                partial.replace(destination)
                return
            failures.append(f"{address}: expected MD5 {md5}, found {found} ({size:,} bytes)")
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{address}: {error}")
        finally:
            partial.unlink(missing_ok=True)
    headline = f"Error downloading {destination.name} to {destination.parent}:"
    raise RuntimeError("\n  ".join([headline, *failures]))


def _save(address: str, path: Path) -> tuple[int, str]:
    """Write what is at `address` to `path`; its size in bytes and MD5 checksum."""
    # The checksum identifies the file that the authors published; it is not a defence against forgery.
    digest = hashlib.md5(usedforsecurity=False)
    request = urllib.request.Request(address, headers={"User-Agent": "torturous"})
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response, open(path, "xb") as file:
        announced = response.headers.get("Content-Length", "")
        total = int(announced) if announced.isdecimal() else None
        description = address.rpartition("/")[2]
        with tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc=description) as progress:
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                progress.update(len(chunk))
        return file.tell(), digest.hexdigest()
