"""Smart crops of a session's images: read, find the subject, cut, scale, and store if asked to.

The server calls this; where to cut is decided by `crop`. Pictures are worked on in threads of their own, so that they
hold up neither the event loop nor the store calls of others.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
from artifacts.errors import InvalidName, NotFound
from artifacts.sessions import Sessions
from PIL import Image

from trainer import crop, faces, images
from trainer.crop import Box, Square
from trainer.errors import TrainerError

DEFAULT_SIZE_PX = 512
# Faces are found well at this size, and large photos take no longer than small ones.
_DETECTION_EDGE_PX = 640
_THREADS = 2


class CropMethod(StrEnum):
    """How a crop was placed."""

    FACE = "FACE"
    SALIENCY = "SALIENCY"
    UNCHANGED = "UNCHANGED"


@dataclass(frozen=True)
class Cropped:
    """The crop of one image: where it lies in the upright original, and its picture as encoded file."""

    method: CropMethod
    square: Square
    data: bytes


@dataclass(frozen=True)
class Outcome:
    """What became of one image; either cropped or error is set."""

    filename: str
    cropped: Cropped | None
    error: str
    num_done: int
    num_total: int


class Cropper:
    """Crops the images of sessions."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="crop")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def preview(self, session: str, size_px: int, filenames: Sequence[str]) -> AsyncIterator[Outcome]:
        """Crops of the named images (none named: all) as PNG; nothing is stored. Raises NotFound before the first."""
        async for outcome in self._each(session, filenames, partial(self._preview, session, size_px)):
            yield outcome

    async def apply(self, session: str, size_px: int, filenames: Sequence[str]) -> AsyncIterator[Outcome]:
        """The same, and each image is replaced by its crop as soon as it is done."""
        async for outcome in self._each(session, filenames, partial(self._apply, session, size_px)):
            yield outcome

    async def _each(
        self, session: str, filenames: Sequence[str], work: Callable[[str], Cropped]
    ) -> AsyncIterator[Outcome]:
        chosen = await asyncio.to_thread(self._chosen, session, filenames)
        for number, filename in enumerate(chosen, 1):
            cropped, error = None, ""
            try:
                cropped = await asyncio.get_running_loop().run_in_executor(self._threads, work, filename)
            except (TrainerError, NotFound, InvalidName) as problem:  # one bad image does not end the others
                error = str(problem)
            yield Outcome(filename, cropped, error, number, len(chosen))

    def _chosen(self, session: str, filenames: Sequence[str]) -> list[str]:
        known = self._sessions.image_names(session)
        for filename in filenames:
            if filename not in known:
                raise NotFound("instance image", filename, f"session {session!r}")
        return list(dict.fromkeys(filenames)) or known

    def _preview(self, session: str, size_px: int, filename: str) -> Cropped:
        return cropped(
            self._sessions.read_image(session, filename), filename, size_px or DEFAULT_SIZE_PX, "preview.png"
        )

    def _apply(self, session: str, size_px: int, filename: str) -> Cropped:
        edge = size_px or DEFAULT_SIZE_PX
        result = cropped(self._sessions.read_image(session, filename), filename, edge, filename)
        if result.method != CropMethod.UNCHANGED:
            self._sessions.put_image(session, filename, result.data, edge, edge)
        return result


def cropped(data: bytes, filename: str, size_px: int, target: str) -> Cropped:
    """The crop of an encoded picture, exactly size_px x size_px, encoded for the file name `target`.

    A picture of that size comes back as it is. Raises what `images.decode` raises.
    """
    size = images.size_of(data, filename)
    picture = images.decode(data, filename)
    if size.width_px == size.height_px == size_px:
        same = data if target == filename else images.encode(picture, target)
        return Cropped(CropMethod.UNCHANGED, Square(0, 0, size_px), same)
    found = _faces(picture)
    square = crop.place(*picture.size, found, _focus(picture) if not found else (0.0, 0.0))
    method = CropMethod.FACE if found else CropMethod.SALIENCY
    return Cropped(method, square, images.encode(cut(picture, square, size_px), target))


def cut(picture: Image.Image, square: Square, size_px: int) -> Image.Image:
    """The square of a picture at exactly size_px x size_px, enlarged if it is smaller."""
    box = (square.left, square.top, square.left + square.edge, square.top + square.edge)
    result = picture.resize((size_px, size_px), Image.Resampling.LANCZOS, box=box)
    result.info = picture.info
    return result


def _faces(picture: Image.Image) -> list[Box]:
    scale = min(1.0, _DETECTION_EDGE_PX / max(picture.size))
    width, height = (max(1, round(edge * scale)) for edge in picture.size)
    small = np.asarray(picture.resize((width, height), Image.Resampling.BOX) if scale < 1 else picture)
    factor = picture.width / width, picture.height / height
    return [
        Box(box.left * factor[0], box.top * factor[1], box.width * factor[0], box.height * factor[1])
        for box in faces.detect(small)
    ]


def _focus(picture: Image.Image) -> tuple[float, float]:
    edge = crop.SALIENCY_EDGE_PX
    grey = np.asarray(picture.convert("L").resize((edge, edge), Image.Resampling.BOX), np.float32)
    short = min(picture.size)
    x, y = crop.salient_point(grey, (short / picture.width, short / picture.height))
    return x * picture.width / edge, y * picture.height / edge
