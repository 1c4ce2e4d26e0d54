"""What can go wrong in the trainer, in its own words. What the store can do wrong is in `artifacts.errors`.

TrainerError
├── ImageUnreadable, ImageTooLarge, ImageTooSmall, ImageAnimated      the picture is at fault
├── FileNameUnsupported, Upload{Mismatch,TooLarge,Malformed}            the upload is at fault
├── PageTokenInvalid, RequestIdReused                                 the request is at fault
├── BaseModelUnknown, BaseModelUnsupported, ResolutionUnsupported     the base model cannot do it
├── SessionEmpty, FilesUnusable, Caption{WithoutImage,Missing}        the session is not ready
├── SessionNotExportable, SessionChanged, OffsetBeyondEnd            the export cannot begin or go on
├── ArchiveInvalid, ArchiveDamaged, CheckpointDiffers                the archive cannot be imported
├── RunActive, RunFinished, RunElsewhere                              another run, or this one, is in the way
└── BackendUnavailable, and those of `cluster.errors`                 what executes runs says no

All public attributes are str or int, so that they can travel in the details of an error.
"""

from collections.abc import Sequence


class TrainerError(Exception):
    """Root of the trainer's errors."""


class ImageUnreadable(TrainerError):
    """The bytes are no picture that can be decoded. Field: file."""

    def __init__(self, file: str, found: str) -> None:
        super().__init__(f"{file}: {found}")
        self.file = file


class ImageTooLarge(TrainerError):
    """More pixels than are decoded. Fields: file, width_px, height_px, limit_megapixels."""

    def __init__(self, file: str, width_px: int, height_px: int, limit_megapixels: int) -> None:
        super().__init__(
            f"{file} has {width_px}x{height_px} pixels; at most {limit_megapixels} megapixels are accepted, send a smaller one"
        )
        self.file = file
        self.width_px = width_px
        self.height_px = height_px
        self.limit_megapixels = limit_megapixels


class ImageTooSmall(TrainerError):
    """Too few pixels to learn from. Fields: file, width_px, height_px, minimum_px."""

    def __init__(self, file: str, width_px: int, height_px: int, minimum_px: int) -> None:
        super().__init__(
            f"{file} has {width_px}x{height_px} pixels; both edges need at least {minimum_px} to learn from"
        )
        self.file = file
        self.width_px = width_px
        self.height_px = height_px
        self.minimum_px = minimum_px


class ImageAnimated(TrainerError):
    """The file holds several frames. Fields: file, num_frames."""

    def __init__(self, file: str, num_frames: int) -> None:
        super().__init__(f"{file} is an animation of {num_frames} frames; save the frame you mean as a still picture")
        self.file = file
        self.num_frames = num_frames


class FileNameUnsupported(TrainerError):
    """The ending is none of an accepted format. Field: file."""

    def __init__(self, file: str, endings: Sequence[str]) -> None:
        super().__init__(f"file name {file!r} does not end in one of {', '.join(endings)}")
        self.file = file


class UploadMismatch(TrainerError):
    """The bytes that came are not those the header promised. Fields: file, expected, found."""

    def __init__(self, file: str, expected: str, found: str) -> None:
        super().__init__(f"upload of {file}: the header promised {expected}, but {found} arrived; send it again")
        self.file = file
        self.expected = expected
        self.found = found


class UploadTooLarge(TrainerError):
    """The file is larger than accepted. Fields: file, limit_bytes."""

    def __init__(self, file: str, limit_bytes: int) -> None:
        super().__init__(f"{file} is larger than {limit_bytes} bytes ({limit_bytes >> 20} MiB); send a smaller file")
        self.file = file
        self.limit_bytes = limit_bytes


class UploadMalformed(TrainerError):
    """The messages of an upload came in the wrong order: not one header first, then chunks."""


class PageTokenInvalid(TrainerError):
    """The page token was not made by this service for this list."""

    def __init__(self) -> None:
        super().__init__("page_token is not one that this list answered; begin again with an empty one")


class RequestIdReused(TrainerError):
    """The request_id belongs to an earlier request that asked for something else. Fields: request_id, name."""

    def __init__(self, request_id: str, name: str) -> None:
        super().__init__(
            f"request_id {request_id!r} made {name}, with other settings than this request has; use a new request_id"
        )
        self.request_id = request_id
        self.name = name


class BaseModelUnknown(TrainerError):
    """No base model has this name. Field: base_model."""

    def __init__(self, base_model: str, known: Sequence[str]) -> None:
        names = ", ".join(known) or "none is installed"
        super().__init__(f"base model {base_model!r} is not in the registry; known: {names}")
        self.base_model = base_model


class BaseModelUnsupported(TrainerError):
    """The base model cannot be trained here, or its folder is incomplete. Fields: base_model, found."""

    def __init__(self, base_model: str, found: str) -> None:
        super().__init__(f"base model {base_model!r} cannot be trained: {found}")
        self.base_model = base_model
        self.found = found


class ResolutionUnsupported(TrainerError):
    """The base model cannot train at this resolution. Fields: base_model, resolution_px, native_px, and its limits."""

    def __init__(
        self, base_model: str, resolution_px: int, native_px: int, multiple_px: int, minimum_px: int, maximum_px: int
    ) -> None:
        super().__init__(
            f"base model {base_model!r} (native {native_px} px) cannot train at {resolution_px} px; "
            f"it takes multiples of {multiple_px} from {minimum_px} to {maximum_px}"
        )
        self.base_model = base_model
        self.resolution_px = resolution_px
        self.native_px = native_px
        self.multiple_px = multiple_px
        self.minimum_px = minimum_px
        self.maximum_px = maximum_px


class SessionEmpty(TrainerError):
    """The session has no instance images. Field: session."""

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session!r} has no instance images; upload some first")
        self.session = session


class FilesUnusable(TrainerError):
    """Files among the instance images that are no images by their names. Fields: session, files."""

    def __init__(self, session: str, files: Sequence[str], endings: Sequence[str]) -> None:
        self.session = session
        self.files = _some(files)
        super().__init__(
            f"session {session!r} has files in its instance_images folder that cannot be trained on: {self.files}; "
            f"delete them, or give images a name of at most 200 bytes that ends in one of {', '.join(endings)}"
        )


class CaptionWithoutImage(TrainerError):
    """Caption files that belong to no image. Fields: session, captions."""

    def __init__(self, session: str, captions: Sequence[str]) -> None:
        self.session = session
        self.captions = _some(captions)
        super().__init__(
            f"session {session!r} has captions without their images: {self.captions}; "
            "upload the images, or delete these files from its captions folder"
        )


class CaptionMissing(TrainerError):
    """Images without a caption although captions are required. Fields: session, images."""

    def __init__(self, session: str, images: Sequence[str]) -> None:
        self.session = session
        self.images = _some(images)
        super().__init__(
            f"session {session!r} has images without a caption: {self.images}; write them, or leave out require_captions"
        )


class SessionNotExportable(TrainerError):
    """Something in the session would not be accepted back. Fields: session, problems."""

    def __init__(self, session: str, problems: Sequence[str]) -> None:
        self.session = session
        self.problems = _some(problems)
        super().__init__(f"session {session!r} cannot be exported: {self.problems}; rename or remove it in the bucket")


class SessionChanged(TrainerError):
    """The session is no longer what a part of its archive was made from. Fields: session, found."""

    def __init__(self, session: str, found: str) -> None:
        super().__init__(f"session {session!r} changed since its export began: {found}; begin the export anew")
        self.session = session
        self.found = found


class OffsetBeyondEnd(TrainerError):
    """The export is shorter than the offset. Fields: offset, size_bytes."""

    def __init__(self, offset: int, size_bytes: int) -> None:
        super().__init__(f"offset {offset} is beyond the end of the archive, which has {size_bytes} bytes; begin anew")
        self.offset = offset
        self.size_bytes = size_bytes


class ArchiveInvalid(TrainerError):
    """The archive is none of a session, or holds what no session may hold. Field: found."""

    def __init__(self, found: str) -> None:
        super().__init__(f"this is no archive of a session as `darkroom session export` writes it: {found}")
        self.found = found


class ArchiveDamaged(TrainerError):
    """The bytes of an entry are not those that the index promises. Fields: entry, expected, found."""

    def __init__(self, entry: str, expected: str, found: str) -> None:
        super().__init__(f"{entry} of the archive is damaged: expected {expected}, found {found}; take another copy")
        self.entry = entry
        self.expected = expected
        self.found = found


class CheckpointDiffers(TrainerError):
    """A checkpoint of the archive has the id of another one here. Fields: checkpoint, archived, found: sha256 of the manifests."""

    def __init__(self, checkpoint: str, archived: str, found: str) -> None:
        super().__init__(
            f"checkpoint {checkpoint!r} is here already with other content: the manifest in the archive has sha256 {archived}, "
            f"the one here {found}; delete the one here, or export again without checkpoints"
        )
        self.checkpoint = checkpoint
        self.archived = archived
        self.found = found


class RunActive(TrainerError):
    """A run of this session is not over. Fields: session, run."""

    def __init__(self, session: str, run: str) -> None:
        super().__init__(f"{run} of session {session!r} is not over; wait for it or cancel it")
        self.session = session
        self.run = run


class RunFinished(TrainerError):
    """The run is over, or about to be, so that it cannot be cancelled, suspended or resumed. Fields: run, state."""

    def __init__(self, run: str, state: str, asked: str) -> None:
        super().__init__(f"{run} is {state} already and cannot be {asked}")
        self.run = run
        self.state = state


class RunElsewhere(TrainerError):
    """The run belongs to another machine or cluster. Fields: run, owner."""

    def __init__(self, run: str, owner: str) -> None:
        super().__init__(f"{run} is executed by {owner} and can be suspended and resumed only there; ask that trainer")
        self.run = run
        self.owner = owner


class BackendUnavailable(TrainerError):
    """What executes runs does not answer now; try again."""


def _some(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
