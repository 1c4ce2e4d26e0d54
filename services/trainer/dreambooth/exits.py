"""Exit codes, the program's only answer to who started it. They are normative: docs/exit-codes.md.

0    finished, or already finished               75   the object store is away, or the other
64   environment, recipe, device, or a taken id       machines never came: retry, counted
65   images, captions, resolution, divergence    76   another process of this run has ended,
                                                      or was asked to: retry
66   base model missing, incomplete or unknown   77   out of memory: retry, counted
67   session missing or without images           78   another process carries out this run
69   the resume point does not fit what is here now, a record is damaged, or the machine is too small: its memory,
     or its disk is full
68   the bucket does not exist, or the store refuses the credentials or the request
143  stopped by SIGTERM
1    anything else, a mistake of this program: retry, counted
"""

import signal
import threading
from types import FrameType
from typing import Final

from artifacts import errors as artifacts_errors
from chassis.config import ConfigError

from dreambooth import errors
from dreambooth.full_disk import is_full_disk

FINISHED: Final = 0
UNKNOWN: Final = 1
UNREACHABLE: Final = 75
FULL_DISK: Final = 69
PARTNER_LOST: Final = 76
OUT_OF_MEMORY: Final = 77
STOPPED: Final = 143

_CODES: Final[dict[type[BaseException], int]] = {
    ConfigError: 64,
    errors.RecipeInvalid: 64,
    errors.DeviceUnusable: 64,
    errors.PictureInvalid: 65,
    errors.Diverged: 65,
    artifacts_errors.CaptionInvalid: 65,
    artifacts_errors.InvalidName: 65,  # a file put into the bucket by hand
    errors.BaseModelInvalid: 66,
    errors.SessionUnusable: 67,
    errors.ResumePointUnusable: 69,
    errors.MemoryTooSmall: 69,
    artifacts_errors.ManifestInvalid: 69,  # a damaged record, or one of a newer version
    artifacts_errors.NotFound: 68,
    artifacts_errors.AccessDenied: 68,
    artifacts_errors.StoreRejected: 68,
    artifacts_errors.StoreUnavailable: UNREACHABLE,
    MemoryError: OUT_OF_MEMORY,
    errors.NotOurs: 64,  # the checkpoint id of the order is taken; nobody else is at work
    errors.WriterAlive: 78,
    errors.LeaseLost: 78,
    errors.PartnersAbsent: UNREACHABLE,
    errors.PartnerLost: PARTNER_LOST,
    errors.Stopped: STOPPED,
    errors.PartnerStopped: PARTNER_LOST,
}


def code(error: BaseException) -> int:
    """The exit code of a run that ended with `error`."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    if is_full_disk(error):
        return FULL_DISK
    return OUT_OF_MEMORY if _is_out_of_memory(error) else UNKNOWN


def _is_out_of_memory(error: BaseException) -> bool:
    # Recognised by name and text: this module must work before, and without, the slow import of torch.
    named = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return named or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error))


class StopSignal:
    """Remembers SIGTERM; the work asks between its steps. A second SIGTERM changes nothing."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._by_partner = False

    def listen(self) -> None:
        """Take over SIGTERM; main thread only."""
        signal.signal(signal.SIGTERM, self._on_signal)

    def set(self) -> None:
        """Ask for the end, as SIGTERM does."""
        self._by_partner = False
        self._event.set()

    def set_by_partner(self) -> None:
        """Another process that trains this run was asked to end: so does this one."""
        self._by_partner = not self.is_set()
        self._event.set()

    def is_set(self) -> bool:
        """Whether the end was asked for."""
        return self._event.is_set()

    def check(self) -> None:
        """Raise Stopped if the end was asked for, PartnerStopped if only another process was asked."""
        if self._event.is_set() and self._by_partner:
            raise errors.PartnerStopped("another process of this run was stopped by SIGTERM: this one ends, too")
        if self._event.is_set():
            raise errors.Stopped("stopped by SIGTERM")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.set()
