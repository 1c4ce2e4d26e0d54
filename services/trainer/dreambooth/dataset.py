"""The session's images and captions, every one downloaded, checked and resized before step 0.

`inputs` calls `load`; what is shown at which step is left to `batches`. All mistakes are reported together.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import NotFound
from artifacts.sessions import InstanceImage, Sessions

from dreambooth import buckets, pictures, prompts
from dreambooth.errors import PictureInvalid, SessionUnusable
from dreambooth.pixel_file import PixelFile, Pixels
from dreambooth.recipe import BUCKETS, Recipe
from dreambooth.watch import Watch
from dreambooth.wording import first_few


@dataclass(frozen=True)
class TrainingImage:
    """One image, ready for a resolution. sha256: of the file as uploaded. pixels: uint8 RGB, shape (height, width, 3),
    just large enough for `cut`, the (height, width) of a training picture. was_enlarged: the file has fewer pixels."""

    filename: str
    sha256: str
    prompt: str
    pixels: Pixels
    cut: tuple[int, int]
    was_enlarged: bool = False

    @property
    def num_places(self) -> tuple[int, int]:
        """Possible top and left edges of the cut."""
        return self.pixels.shape[0] - self.cut[0] + 1, self.pixels.shape[1] - self.cut[1] + 1


def load(
    sessions: Sessions,
    session: str,
    recipe: Recipe,
    edges_px: Iterable[int],
    scratch: Path,
    warn: Callable[[str], None],
    watch: Watch | None = None,
) -> Mapping[int, tuple[TrainingImage, ...]]:
    """Every image of the session in order of file name, for each of the resolutions; pixels lie in files of `scratch`.

    Raises SessionUnusable, and PictureInvalid naming every file that cannot be trained on.
    """
    watch = watch or Watch()
    try:
        names = sessions.image_names(session)
        found = list(watch.over(sessions.each_image(session, names), len(names), "looking at images"))
        stray = sessions.stray_captions(session)
    except NotFound as error:
        raise SessionUnusable(str(error)) from error
    if not found:
        raise SessionUnusable(f"session {session!r} has no images; upload some first")
    files = {edge_px: PixelFile(scratch / f"pixels-{edge_px}.bin") for edge_px in edges_px}

    def load_one(image: InstanceImage) -> Mapping[int, TrainingImage] | str:
        return _load_one(sessions, session, image, recipe, files)

    outcomes = watch.each(load_one, found, "fetching images")
    problems = [f"captions/{name} belongs to no image: rename it or delete it" for name in stray]
    problems += [outcome for outcome in outcomes if isinstance(outcome, str)]
    if problems:
        raise PictureInvalid(tuple(problems))
    loaded = [outcome for outcome in outcomes if not isinstance(outcome, str)]
    _warn_about([next(iter(sizes.values())) for sizes in loaded], warn)
    return {edge_px: tuple(sizes[edge_px] for sizes in loaded) for edge_px in files}


def _load_one(
    sessions: Sessions, session: str, image: InstanceImage, recipe: Recipe, files: Mapping[int, PixelFile]
) -> Mapping[int, TrainingImage] | str:
    """The image at every resolution, or what is wrong with it."""
    content = sessions.read_image(session, image.filename)
    sha256 = hashlib.sha256(content).hexdigest()
    if image.sha256 and sha256 != image.sha256:  # unknown for a file put into the bucket by hand
        return f"{image.filename}: expected sha256 {image.sha256}, found {sha256}; upload it again"
    if recipe.require_captions and not image.caption:
        return f"{image.filename}: has no caption, and require_captions is set"
    prompt = prompts.prompt_of(image.filename, image.caption, recipe)
    if not prompt:
        return f"{image.filename}: its name gives no prompt; rename it, set instance_prompt or use captions"
    return _prepared(image.filename, sha256, prompt, content, recipe.crop == BUCKETS, files)


def prepare(filename: str, prompt: str, content: bytes, edge_px: int, file: PixelFile) -> TrainingImage:
    """An image that this program made itself, as a square. Raises PictureInvalid."""
    made = _prepared(filename, hashlib.sha256(content).hexdigest(), prompt, content, False, {edge_px: file})
    if isinstance(made, str):
        raise PictureInvalid((made,))
    return made[edge_px]


def _prepared(
    filename: str, sha256: str, prompt: str, content: bytes, in_buckets: bool, files: Mapping[int, PixelFile]
) -> Mapping[int, TrainingImage] | str:
    try:
        picture = pictures.decode(content)
    except pictures.Undecodable as error:
        return f"{filename}: {error}"
    made = {}
    for edge_px, file in files.items():
        cut = buckets.nearest(*picture.size, edge_px) if in_buckets else (edge_px, edge_px)
        pixels = file.add(pictures.cover(picture, cut))
        small = picture.height < cut[0] or picture.width < cut[1]
        made[edge_px] = TrainingImage(filename, sha256, prompt, pixels, cut, small)
    return made


def _warn_about(images: list[TrainingImage], warn: Callable[[str], None]) -> None:
    first: dict[str, str] = {}
    twice = []
    for image in images:
        if image.sha256 in first:
            twice.append(f"{image.filename} is the same picture as {first[image.sha256]}: it counts twice")
        first.setdefault(image.sha256, image.filename)
    for sentence in first_few(twice, "images are there twice"):
        warn(sentence)
