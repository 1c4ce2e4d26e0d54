"""TensorBoard event files of a run: loss, learning rate and images per second of each stage.

`records` feeds it in its own thread. The file is written to a local folder and uploaded whole, as S3 cannot append.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from artifacts.store import ObjectStore

_CURVES = ("loss", "smoothed_loss", "learning_rate", "images_per_second")


class Curves:
    """The curves of one attempt, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None
        self._is_new = False

    def add(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Append the progress among these records."""
        for record in records:
            if record["kind"] == "progress":
                self._writer = self._writer or _open(self._folder)
                for name in _CURVES:
                    self._writer.add_scalar(f"{record['stage']}/{name}", record[name], record["step"])
                self._is_new = True

    def upload(self, store: ObjectStore, prefix: str) -> None:
        """Put the files below `prefix` if anything was added since the last time."""
        if not self._is_new:
            return
        self._writer.flush()
        for file in sorted(self._folder.iterdir()):
            store.put(f"{prefix}{file.name}", file.read_bytes())
        self._is_new = False


def _open(folder: Path) -> Any:
    from tensorboardX import SummaryWriter  # imports torch: seconds that a refused run need not wait

    return SummaryWriter(str(folder))
