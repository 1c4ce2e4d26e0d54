"""The tags of a prompt that name a LoRA: `<lora:NAME>`, `<lora:NAME:WEIGHT>`, `<lora:NAME:TEXT_ENCODER:UNET>`.

`planning.py` takes them out here before the prompt is checked and drawn. As in A1111 the weight of the text encoder is that of
the UNet unless a second one is given, both may be written as `te=` and `unet=`, and `lyco` means the same as `lora`.
"""

import math
import re
from dataclasses import dataclass
from typing import Final

from webui_engine.errors import RequestInvalid, Unsupported

_TAG: Final = re.compile(r"<(?P<kind>lora|lyco|hypernet):(?P<arguments>[^<>]*)>", re.IGNORECASE)
_PARTS: Final = ("te", "unet")


@dataclass(frozen=True)
class Tag:
    """A LoRA's name as it was written, and what its layers are multiplied with; 0 switches a part off."""

    name: str
    text_encoder: float = 1.0
    unet: float = 1.0


def split(field: str, text: str, wanted: bool = True) -> tuple[str, tuple[Tag, ...]]:
    """The words of a prompt, and its tags in order. Unless they are wanted, all tags are taken out and dropped.

    Raises RequestInvalid for a tag that cannot be understood, Unsupported for other networks than LoRA.
    """
    tags = tuple(_tag(field, match) for match in _TAG.finditer(text)) if wanted else ()
    return _TAG.sub("", text), tags


def _tag(field: str, match: re.Match[str]) -> Tag:
    if match["kind"].lower() == "hypernet":
        raise Unsupported(field, match.group(), "remove the tag")
    name, *arguments = (part.strip() for part in match["arguments"].split(":"))
    if not name:
        raise RequestInvalid(field, f"found {match.group()!r}, expected a name as in <lora:NAME:0.8>")
    positional = [argument for argument in arguments if "=" not in argument]
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if len(positional) > len(_PARTS) or not named.keys() <= set(_PARTS):
        advice = "a tag has a weight for the text encoder (te=) and one for the UNet (unet=), no more"
        raise Unsupported(field, match.group(), advice)
    given = dict(zip(_PARTS, positional, strict=False)) | named
    text_encoder = _weight(field, match, given["te"]) if "te" in given else 1.0
    return Tag(name, text_encoder, _weight(field, match, given["unet"]) if "unet" in given else text_encoder)


def _weight(field: str, match: re.Match[str], text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RequestInvalid(
            field, f"found weight {text!r} in {match.group()!r}, expected a number as in <lora:NAME:0.8>"
        )
    return value
