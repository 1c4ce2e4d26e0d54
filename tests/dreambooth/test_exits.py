import errno
import signal

import pytest
import torch
from artifacts import errors as artifacts_errors
from chassis.config import ConfigError
from dreambooth import errors, exits
from dreambooth.exits import StopSignal
from safetensors import SafetensorError


def caused_by(cause: Exception) -> Exception:
    """An error that a library raised because of another one."""
    error = RuntimeError("PytorchStreamWriter failed writing file")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(("x",)), 64),
        (errors.RecipeInvalid(("x",)), 64),
        (errors.DeviceUnusable("x"), 64),
        (errors.PictureInvalid(("x",)), 65),
        (artifacts_errors.CaptionInvalid("key", "x"), 65),
        (artifacts_errors.InvalidName("file name", "x", "y"), 65),
        (errors.Diverged("x"), 65),
        (errors.BaseModelInvalid("x"), 66),
        (errors.SessionUnusable("x"), 67),
        (artifacts_errors.AccessDenied("key", "store", "x"), 68),
        (artifacts_errors.StoreUnavailable("key", "store", "x"), 75),
        (MemoryError(), 77),
        (torch.OutOfMemoryError("CUDA out of memory"), 77),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), 77),
        (errors.NotOurs("x"), 64),
        (artifacts_errors.ManifestInvalid("key", ("x",)), 69),
        (errors.PartnersAbsent("x"), 75),
        (errors.WriterAlive("x"), 78),
        (errors.LeaseLost("x"), 78),
        (errors.PartnerLost("x"), 76),
        (errors.Stopped("x"), 143),
        (errors.PartnerStopped("x"), 76),
        (OSError(errno.ENOSPC, "No space left on device", "/tmp/pixels"), 69),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 69),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), 69),
        (caused_by(OSError(errno.ENOSPC, "No space left on device")), 69),
        (artifacts_errors.StoreUnavailable("key", "store", "No space left on device"), 75),
        (OSError(errno.EIO, "Input/output error"), 1),
        (RuntimeError("a mistake"), 1),
    ],
)
def test_each_end_has_its_code(error: Exception, code: int) -> None:
    assert exits.code(error) == code


def test_who_was_asked_to_end_says_so_also_if_a_partner_was_first() -> None:
    stop = StopSignal()
    stop.set_by_partner()
    with pytest.raises(errors.PartnerStopped):
        stop.check()
    stop.set()
    with pytest.raises(errors.Stopped, match=r"^stopped by SIGTERM"):
        stop.check()
    stop.set_by_partner()
    with pytest.raises(errors.Stopped, match=r"^stopped by SIGTERM"):
        stop.check()


def test_sigterm_is_remembered_until_asked_for() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = StopSignal()
    try:
        stop.listen()
        stop.check()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(errors.Stopped):
            stop.check()
    finally:
        signal.signal(signal.SIGTERM, before)
