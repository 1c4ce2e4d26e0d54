"""Captions the images of a session, one result as soon as it is stored.

Domain over artifacts' sessions: a bad image is that image's error; a repeated call continues where the last one ended.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from artifacts.errors import CaptionInvalid, InvalidName, NotFound
from artifacts.sessions import Sessions

from captioner.errors import ImageFileTooLarge, ImageTooLarge, ImageUnreadable, QueueFull, SessionEmpty
from captioner.generation import Text
from captioner.images import check_file_size

# Images of one session in flight: enough to fill batches, few enough that other callers are served in between.
_PARALLEL_IMAGES = 8
_QUEUE_RETRY_SECONDS = 0.25
# Faults of one image: of its bytes, of its file name or caption file, and that it was deleted since it was listed.
_FAULTS_OF_THE_IMAGE = (ImageUnreadable, ImageTooLarge, ImageFileTooLarge, InvalidName, CaptionInvalid, NotFound)

Describe = Callable[[Callable[[], bytes]], Awaitable[Text]]


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
    sessions: Sessions, session: str, wording: Wording, describe: Describe
) -> AsyncIterator[ImageOutcome]:
    """Outcomes in the order in which images finish. Raises NotFound and SessionEmpty before the first one.

    A full queue is waited for. Raises NotFound if the session is deleted meanwhile.
    """
    filenames = await asyncio.to_thread(sessions.image_names, session)
    if not filenames:
        raise SessionEmpty(session)
    gate = asyncio.Semaphore(_PARALLEL_IMAGES)
    work = _SessionWork(sessions, session, wording, describe)

    async def one(filename: str) -> tuple[str, str, bool, str]:
        async with gate:
            try:
                return filename, *await work.caption(filename), ""
            except _FAULTS_OF_THE_IMAGE as error:
                if isinstance(error, NotFound) and error.what == "session":
                    raise
                return filename, "", False, str(error).replace("image 0", f"image {filename}", 1)

    tasks = [asyncio.ensure_future(one(filename)) for filename in filenames]
    try:
        for num_done, finished in enumerate(asyncio.as_completed(tasks), start=1):
            filename, caption, skipped, error = await finished
            yield ImageOutcome(filename, caption, skipped, error, num_done, len(filenames))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class _SessionWork:
    """What is the same for all images of one call."""

    sessions: Sessions
    session: str
    wording: Wording
    describe: Describe

    async def caption(self, filename: str) -> tuple[str, bool]:
        """The caption and whether it is the one that was there. Raises `_FAULTS_OF_THE_IMAGE`.

        A caption that is replaced is not read: a damaged one is written over.
        """
        if not self.wording.replace:
            existing = await asyncio.to_thread(self.sessions.caption, self.session, filename)
            if existing:
                return existing, True
        text = await self._describe_when_there_is_room(lambda: self._read(filename))
        caption = f"{self.wording.prefix}{text.text}{self.wording.suffix}"
        await asyncio.to_thread(self.sessions.set_caption, self.session, filename, caption)
        return caption, False

    async def _describe_when_there_is_room(self, read: Callable[[], bytes]) -> Text:
        """The text once the queue takes the image, which other callers may have filled; waits until it is cancelled."""
        while True:
            try:
                return await self.describe(read)
            except QueueFull:
                await asyncio.sleep(_QUEUE_RETRY_SECONDS)

    def _read(self, filename: str) -> bytes:
        """Runs in a decoding thread."""
        check_file_size(filename, self.sessions.image_size(self.session, filename))
        return self.sessions.read_image(self.session, filename)
