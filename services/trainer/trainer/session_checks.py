"""Whether a session can be trained on, as far as names and captions tell. `training` asks before it accepts a run.

No image is read: thousands of them must not keep a caller waiting. The program opens every one before its first step.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePath

from artifacts import names
from artifacts.errors import InvalidName
from artifacts.sessions import Sessions

from trainer import images
from trainer.errors import CaptionMissing, CaptionWithoutImage, FilesUnusable, SessionEmpty

_PARALLEL_REQUESTS = 8


def check(sessions: Sessions, session: str, require_captions: bool) -> None:
    """Raises NotFound, CaptionInvalid, SessionEmpty, FilesUnusable, CaptionWithoutImage, CaptionMissing."""
    filenames = sessions.image_names(session)
    if not filenames:
        raise SessionEmpty(session)
    if unusable := [filename for filename in filenames if not _is_image_name(filename)]:
        raise FilesUnusable(session, unusable, images.ENDINGS)
    if stray := sessions.stray_captions(session):
        raise CaptionWithoutImage(session, stray)
    captions = _captions(sessions, session, filenames)
    bare = [filename for filename in filenames if not captions.get(filename)]
    if require_captions and bare:
        raise CaptionMissing(session, bare)


def _captions(sessions: Sessions, session: str, filenames: list[str]) -> dict[str, str | None]:
    """Captions of those images that have a caption file."""
    stems = {PurePath(stat.key).stem for stat in sessions.store.list(f"sessions/{session}/captions/")}
    captioned = [filename for filename in filenames if PurePath(filename).stem in stems]
    with ThreadPoolExecutor(_PARALLEL_REQUESTS, thread_name_prefix="captions") as pool:
        texts = pool.map(lambda filename: sessions.caption(session, filename), captioned)
        return dict(zip(captioned, texts, strict=True))


def _is_image_name(filename: str) -> bool:
    try:
        names.file_name(filename)
    except InvalidName:
        return False
    return PurePath(filename).suffix.lower() in images.ENDINGS
