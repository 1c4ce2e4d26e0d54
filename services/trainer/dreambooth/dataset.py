"""The session's images and captions, every one downloaded, checked and resized before step 0.

`inputs` calls `load`; what is shown at which step is left to `batches`. All mistakes are reported together.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from artifacts.errors import NotFound
from artifacts.sessions import InstanceImage, Sessions

from dreambooth import pictures, prompts
from dreambooth.errors import PictureInvalid, SessionUnusable
from dreambooth.recipe import Recipe

_PARALLEL_DOWNLOADS = 8


@dataclass(frozen=True)
class TrainingImage:
    """One image. sha256: of the file as uploaded. pixels: uint8 RGB, shape (height, width, 3), the shorter side equal
    to the training resolution. was_enlarged: the file has fewer pixels than that."""

    filename: str
    sha256: str
    prompt: str
    pixels: np.ndarray
    was_enlarged: bool = False

    def num_places(self, edge_px: int) -> tuple[int, int]:
        """Possible top and left edges of a crop of edge_px x edge_px."""
        return self.pixels.shape[0] - edge_px + 1, self.pixels.shape[1] - edge_px + 1


def load(
    sessions: Sessions, session: str, recipe: Recipe, resolution_px: int, warn: Callable[[str], None]
) -> tuple[TrainingImage, ...]:
    """Every image of the session in order of file name.

    Raises SessionUnusable, and PictureInvalid naming every file that cannot be trained on.
    """
    try:
        found = sessions.images(session)
        stray = sessions.stray_captions(session)
    except NotFound as error:
        raise SessionUnusable(str(error)) from error
    if not found:
        raise SessionUnusable(f"session {session!r} has no images; upload some first")
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS, thread_name_prefix="images") as pool:
        outcomes = list(pool.map(lambda image: _load_one(sessions, session, image, recipe, resolution_px), found))
    images = [outcome for outcome in outcomes if isinstance(outcome, TrainingImage)]
    problems = [f"captions/{name} belongs to no image: rename it or delete it" for name in stray]
    problems += [outcome for outcome in outcomes if isinstance(outcome, str)]
    if problems:
        raise PictureInvalid(tuple(problems))
    _warn_about(images, warn)
    return tuple(images)


def _load_one(
    sessions: Sessions, session: str, image: InstanceImage, recipe: Recipe, resolution_px: int
) -> TrainingImage | str:
    """The image, or what is wrong with it."""
    content = sessions.read_image(session, image.filename)
    sha256 = hashlib.sha256(content).hexdigest()
    if image.sha256 and sha256 != image.sha256:  # unknown for a file put into the bucket by hand
        return f"{image.filename}: expected sha256 {image.sha256}, found {sha256}; upload it again"
    if recipe.require_captions and not image.caption:
        return f"{image.filename}: has no caption, and require_captions is set"
    prompt = prompts.prompt_of(image.filename, image.caption, recipe)
    if not prompt:
        return f"{image.filename}: its name gives no prompt; rename it, set instance_prompt or use captions"
    try:
        picture = pictures.decode(content)
    except pictures.Undecodable as error:
        return f"{image.filename}: {error}"
    pixels = pictures.resize(picture, resolution_px)
    return TrainingImage(image.filename, sha256, prompt, pixels, min(picture.size) < resolution_px)


def _warn_about(images: list[TrainingImage], warn: Callable[[str], None]) -> None:
    first: dict[str, str] = {}
    for image in images:
        if image.sha256 in first:
            warn(f"{image.filename} is the same picture as {first[image.sha256]}: it counts twice")
        first.setdefault(image.sha256, image.filename)
