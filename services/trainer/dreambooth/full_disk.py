"""A full disk: how it is recognised among all errors, and what a person can do. `saver` and `exits` ask. No torch here."""

import errno
from pathlib import Path
from typing import Final

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a full disk, or a used-up quota, is behind it. Libraries wrap the system's error, some in their own text."""
    while error:
        if (isinstance(error, OSError) and error.errno in _FULL) or "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def advice(folder: Path, error: BaseException) -> str:
    """The sentence for the person. folder: the one that the program writes to."""
    return (
        f"the disk of {folder} is full: {error}; free space there, or let TMPDIR name a folder on a larger disk, "
        "and resume the run"
    )
