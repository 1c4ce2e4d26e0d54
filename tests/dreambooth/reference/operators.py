"""Make torchvision importable where its compiled part was built for another torch.

Its wheels on the package index belong to the CUDA build of torch; beside the CPU build their library does not load, and
importing the Python part fails on two operators that are not declared. They are declared here and never called: the
script uses torchvision's transforms of Pillow images, which are plain Python.
"""

import importlib.util
from pathlib import Path
from typing import Final

import torch

_HELD: Final[list[torch.library.Library]] = []  # a declaration lives as long as its object


def declare() -> None:
    """Declare the operators, if torchvision cannot; raises SystemExit without torchvision."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise SystemExit("torchvision is not installed. Install the version that belongs to this torch.")
    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))
    except OSError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _HELD.append(library)
