"""Digests of local files that do not change while the program runs; each file is read once."""

import hashlib
from functools import cache
from pathlib import Path


@cache
def of_file(path: Path) -> str:
    """sha256 in hex. A base model has gigabytes: this takes seconds the first time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
