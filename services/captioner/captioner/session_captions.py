"""Captions the images of a session, one result as soon as it is stored.

Domain over artifacts' sessions: a bad image is that image's error; a repeated call continues where the last one ended.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from artifacts.sessions import InstanceImage, Sessions

from captioner.errors import ImageFileTooLarge, ImageTooLarge, ImageUnreadable, SessionEmpty
from captioner.generation import Text
from captioner.images import check_file_size

# Images of one session in flight: enough to fill batches, few enough that other callers are served in between.
_PARALLEL_IMAGES = 8


@dataclass(frozen=True)
class ImageOutcome:
    """What became of one image: its caption, or why it has none."""

    filename: str
    caption: str
    skipped: bool
    error: str
    num_done: int
    num_total: int


@dataclass(frozen=True)
class Wording:
    """What stands around each caption, and whether existing ones are replaced."""

    prefix: str = ""
    suffix: str = ""
    replace: bool = False


async def caption_session(
    sessions: Sessions, session: str, wording: Wording, describe: Callable[[Callable[[], bytes]], Awaitable[Text]]
) -> AsyncIterator[ImageOutcome]:
    """Outcomes in the order in which images finish. Raises NotFound and SessionEmpty before the first one."""
    images = await asyncio.to_thread(lambda: list(sessions.images(session)))
    if not images:
        raise SessionEmpty(session)
    gate = asyncio.Semaphore(_PARALLEL_IMAGES)

    async def one(image: InstanceImage) -> tuple[InstanceImage, str, bool, str]:
        if image.caption and not wording.replace:
            return image, image.caption, True, ""
        async with gate:
            try:
                check_file_size(image.filename, image.size_bytes)
                text = await describe(partial(sessions.read_image, session, image.filename))
            except (ImageUnreadable, ImageTooLarge, ImageFileTooLarge) as error:
                return image, "", False, str(error).replace("image 0", f"image {image.filename}", 1)
            caption = f"{wording.prefix}{text.text}{wording.suffix}"
            await asyncio.to_thread(sessions.set_caption, session, image.filename, caption)
            return image, caption, False, ""

    tasks = [asyncio.ensure_future(one(image)) for image in images]
    try:
        for num_done, finished in enumerate(asyncio.as_completed(tasks), start=1):
            image, caption, skipped, error = await finished
            yield ImageOutcome(image.filename, caption, skipped, error, num_done, len(images))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
