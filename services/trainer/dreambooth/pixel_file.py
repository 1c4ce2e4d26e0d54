"""Pixels of many images in one file that is mapped into memory: ten thousand photos need no memory and one descriptor."""

import mmap
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Pixels(Protocol):
    """What is asked of an image's pixels: an array, or one that still lies in a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(height, width, 3)."""

    def __getitem__(self, key: Any) -> np.ndarray:
        """A part of them, uint8."""


class PixelFile:
    """Grows by one image after the other; several threads may add."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        self._lock = threading.Lock()
        self._mapped: mmap.mmap | None = None
        path.write_bytes(b"")

    def __getstate__(self) -> dict[str, Any]:
        """For the other processes of this machine, which read the same file."""
        return {**self.__dict__, "_lock": None, "_mapped": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({**state, "_lock": threading.Lock()})

    def add(self, pixels: np.ndarray) -> "StoredPixels":
        """Write an array of bytes; the result reads the same ones from the file."""
        with self._lock:
            offset = self._size
            with self._path.open("r+b") as file:
                file.seek(offset)
                file.write(np.ascontiguousarray(pixels).data)
            self._size += pixels.nbytes
        return StoredPixels(self, offset, pixels.shape)

    def read(self, offset: int, shape: tuple[int, ...]) -> np.ndarray:
        """The array that was written there; read only."""
        count = int(np.prod(shape))
        if self._mapped is None or offset + count > len(self._mapped):
            with self._path.open("rb") as file:
                self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._mapped, np.uint8, count, offset).reshape(shape)


@dataclass(frozen=True)
class StoredPixels:
    """One image in a `PixelFile`."""

    file: PixelFile
    offset: int
    shape: tuple[int, ...]

    def __getitem__(self, key: Any) -> np.ndarray:
        found: np.ndarray = self.file.read(self.offset, self.shape)[key]
        return found
