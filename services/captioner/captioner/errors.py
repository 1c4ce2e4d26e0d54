"""What can go wrong in the captioner, in its own words.

CaptionerError
├── ModelLoading, QueueFull            try again
├── ImageUnreadable                    the picture is at fault
├── ImageTooLarge, ImageFileTooLarge   the picture is over a limit
├── SettingsContradict                 two settings exclude each other
├── PromptUnusable                     the model cannot take this prompt
├── NoRetrievalModel                   Embed and Match are not configured
├── SessionEmpty                       nothing to caption
└── ModelUnusable                      the folder is not a BLIP-2 this service can trust; ends the start
"""


class CaptionerError(Exception):
    """Root of the captioner's errors."""


class ModelLoading(CaptionerError):
    """The model is not in memory yet."""

    def __init__(self) -> None:
        super().__init__("the model is still loading; try again in a moment")


class QueueFull(CaptionerError):
    """More pictures wait than the service accepts. Fields: num_waiting, limit."""

    def __init__(self, num_waiting: int, limit: int) -> None:
        super().__init__(
            f"{num_waiting} images wait and the queue takes {limit}; try again later or send fewer at once"
        )
        self.num_waiting = num_waiting
        self.limit = limit


class ImageUnreadable(CaptionerError):
    """The bytes are no picture that can be decoded. Field: index in the request."""

    def __init__(self, index: int, found: str) -> None:
        super().__init__(f"image {index} cannot be read: {found}")
        self.index = index


class ImageTooLarge(CaptionerError):
    """The picture has more pixels than the service decodes. Fields: index, width_px, height_px, limit_megapixels."""

    def __init__(self, index: int, width_px: int, height_px: int, limit_megapixels: int) -> None:
        super().__init__(
            f"image {index} has {width_px}x{height_px} pixels; at most {limit_megapixels} megapixels are accepted, send a smaller one"
        )
        self.index = index
        self.width_px = width_px
        self.height_px = height_px
        self.limit_megapixels = limit_megapixels


class ImageFileTooLarge(CaptionerError):
    """The object is larger than an image file may be. Fields: key, num_bytes, limit_bytes."""

    def __init__(self, key: str, num_bytes: int, limit_bytes: int) -> None:
        super().__init__(f"{key!r} has {num_bytes} bytes; at most {limit_bytes} are read as an image")
        self.key = key
        self.num_bytes = num_bytes
        self.limit_bytes = limit_bytes


class SettingsContradict(CaptionerError):
    """Two settings exclude each other."""


class PromptUnusable(CaptionerError):
    """The prompt contains the image token, or does not fit into the model's positions."""


class NoRetrievalModel(CaptionerError):
    """Embed and Match need a retrieval model."""

    def __init__(self) -> None:
        super().__init__("no retrieval model is configured; set DARKROOM_RETRIEVAL_MODEL to a BLIP-2 retrieval folder")


class SessionEmpty(CaptionerError):
    """The session has no images. Field: session."""

    def __init__(self, session: str) -> None:
        super().__init__(f"session {session} has no instance images; upload some first")
        self.session = session


class ModelUnusable(CaptionerError):
    """The model folder is incomplete or contradicts itself; its captions would be wrong without a sign of it."""
