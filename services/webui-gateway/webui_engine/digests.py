"""Digests that name models: sha256 of a file, of a folder of weights, and A1111's old short hash.

Called by `catalogue.py`. A digest is remembered by path, size and modification time, so a file is read once.
"""

import hashlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

WEIGHT_SUFFIXES: Final = (".safetensors", ".bin")
_LEGACY_OFFSET: Final = 0x100000
_LEGACY_BYTES: Final = 0x10000


class DigestCache:
    """sha256 of files, remembered in a JSON file between runs."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._known: dict[str, tuple[int, int, str]] = {}
        if file.is_file():
            self._known = {path: (row[0], row[1], row[2]) for path, row in json.loads(file.read_text()).items()}

    def sha256(self, path: Path) -> str:
        """64 hex digits. Raises OSError."""
        stat = path.stat()
        key = str(path.resolve())
        with self._lock:
            found = self._known.get(key)
        if found and found[:2] == (stat.st_size, stat.st_mtime_ns):
            return found[2]
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._lock:
            self._known[key] = (stat.st_size, stat.st_mtime_ns, digest)
            self._save()
        return digest

    def folder_sha256(self, folder: Path) -> str:
        """The digest of a diffusers folder: `combine` over all weight files below it."""
        files = sorted(path for path in folder.rglob("*") if path.suffix in WEIGHT_SUFFIXES and path.is_file())
        return combine((path.relative_to(folder).as_posix(), self.sha256(path)) for path in files)

    def _save(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_name(f"{self._file.name}.{os.getpid()}.part")
        part.write_text(json.dumps(self._known, indent=1))
        part.replace(self._file)


def combine(files: Iterable[tuple[str, str]]) -> str:
    """One digest for (path, sha256) pairs of weight files: sha256 of the lines that `sha256sum` prints, sorted by path.

    By hand: `find * -name '*.safetensors' -o -name '*.bin' | LC_ALL=C sort | xargs sha256sum | sha256sum`.
    """
    lines = (f"{digest}  {path}\n" for path, digest in sorted(files) if Path(path).suffix in WEIGHT_SUFFIXES)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def legacy_hash(path: Path) -> str:
    """8 hex digits of sha256 over 64 KiB at offset 1 MiB: what ControlNet models are shown with."""
    with path.open("rb") as file:
        file.seek(_LEGACY_OFFSET)
        return hashlib.sha256(file.read(_LEGACY_BYTES)).hexdigest()[:8]
