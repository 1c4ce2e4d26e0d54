"""Ready recipes: values that stand in for the fields a caller left unset.

Numbers: steps and rates of the two-stage notebook flow for a face and an object, of its advice on styles
(offset noise), and min-SNR gamma 5 (arXiv 2303.09556).
"""

from collections.abc import Mapping
from typing import Any, Final

from jobs.recipe import StageSettings

# arXiv 2306.06101: Prodigy finds the size of its steps itself, the rate only scales it.
PRODIGY_LEARNING_RATE: Final = 1.0
PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "face": {"text_encoder": StageSettings(200, 1e-6), "unet": StageSettings(1200, 2e-6)},
    "object": {
        "text_encoder": StageSettings(350, 1e-6),
        "unet": StageSettings(1500, 2e-6),
        "flip": True,
        "min_snr_gamma": 5.0,
    },
    "style": {
        "text_encoder": StageSettings(150, 1e-6),
        "unet": StageSettings(2500, 2e-6),
        "use_captions": True,
        "caption_dropout": 0.1,
        "offset_noise": 0.1,
    },
}
