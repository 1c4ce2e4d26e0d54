"""TensorBoard event files of a run: its curves, and in a folder of their own its sample images.

`records` feeds it in its own thread. A file is written to a local folder and uploaded whole, as S3 cannot append; curves
and samples are apart so that pictures are not sent again with every point of a curve.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from artifacts.store import ObjectStore
from PIL import Image

_CURVES = ("loss", "smoothed_loss", "learning_rate", "images_per_second", "eta_seconds")
# Not in what an older program recorded in an earlier attempt of the run.
_NEWER_CURVES = ("text_encoder_learning_rate", "step_seconds", "data_wait_seconds", "model_flops_utilization")


class Curves:
    """Curves and samples of one attempt, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writers: dict[Path, Any] = {}
        self._uploaded_bytes: dict[Path, int] = {}

    def add(self, records: Sequence[Mapping[str, Any]], pictures: Mapping[str, bytes]) -> None:
        """Append the progress and the samples among these records. pictures: PNG of samples by key; one without is left out."""
        for record in records:
            if record["kind"] == "progress":
                for name in (*_CURVES, *(newer for newer in _NEWER_CURVES if newer in record)):
                    tag = f"{record['stage']}/{name}"
                    self._writer(self._folder).add_scalar(tag, record[name], record["step"])
            elif record["kind"] == "sample" and record["object"] in pictures:
                pixels = np.asarray(Image.open(io.BytesIO(pictures[record["object"]])))
                words = "_".join(re.findall(r"\w+", record["prompt"]))
                self._writer(self._folder / "samples").add_image(
                    f"{record['stage']}/{words}", pixels, record["step"], dataformats="HWC"
                )

    def upload(self, store: ObjectStore, prefix: str) -> None:
        """Put the files that grew since the last time below `prefix`."""
        for folder, writer in self._writers.items():
            writer.flush()
            for file in (path for path in sorted(folder.iterdir()) if path.is_file()):
                content = file.read_bytes()
                if len(content) != self._uploaded_bytes.get(file):
                    store.put(f"{prefix}{file.relative_to(self._folder).as_posix()}", content)
                    self._uploaded_bytes[file] = len(content)

    def _writer(self, folder: Path) -> Any:
        if folder not in self._writers:
            from tensorboardX import SummaryWriter  # imports torch: seconds that a refused run need not wait

            self._writers[folder] = SummaryWriter(str(folder))
        return self._writers[folder]
