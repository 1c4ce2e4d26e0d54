"""Turns what the domain says into the messages of the proto, and back. `service` calls this."""

from datetime import UTC, datetime
from typing import Final

from chassis.errors import FieldViolation, InvalidFields
from darkroom.converter.v1 import converter_pb2 as pb

from converter.conversions import Conversion
from converter.inspection import Inspection

FORMATS: Final = {
    "diffusers": pb.FORMAT_DIFFUSERS,
    "safetensors": pb.FORMAT_SAFETENSORS,
    "ckpt": pb.FORMAT_CKPT,
}
PRECISIONS: Final = {
    "": pb.PRECISION_UNSPECIFIED,
    "fp32": pb.PRECISION_FP32,
    "fp16": pb.PRECISION_FP16,
    "bf16": pb.PRECISION_BF16,
}
FORMAT_NAMES: Final = {number: name for name, number in FORMATS.items()}
PRECISION_NAMES: Final = {number: name for name, number in PRECISIONS.items()}

MAX_NAMES: Final = 100
_MAX_METADATA_CHARACTERS: Final = 4096


def inspection(found: Inspection) -> pb.Inspection:
    """Lists are cut at 100 names, and long metadata (thumbnails) at 4096 characters."""
    return pb.Inspection(
        format=FORMATS[found.format],
        architecture=found.architecture,
        precision=PRECISIONS[found.precision],
        prediction_type=found.prediction_type,
        num_tensors=found.num_tensors,
        num_bytes=found.num_bytes,
        components=found.components,
        missing=found.missing[:MAX_NAMES],
        unexpected=found.unexpected[:MAX_NAMES],
        metadata={_clean(key): _clean(value) for key, value in found.metadata.items()},
        num_bytes_read=found.num_bytes_read,
    )


def conversion(state: Conversion) -> pb.Conversion:
    """The message of one conversion."""
    message = pb.Conversion(
        name=f"conversions/{state.id}",
        state=pb.ConversionState.Value(f"CONVERSION_STATE_{state.state}"),
        source=f"checkpoints/{state.source}",
        format=FORMATS[state.format],
        precision=PRECISIONS[state.precision],
        checkpoint=f"checkpoints/{state.id}",
        num_tensors_done=state.num_tensors_done,
        num_tensors=state.num_tensors,
        num_bytes_done=state.num_bytes_done,
        num_bytes=state.num_bytes,
        num_tensors_proved=state.num_tensors_proved,
        tensors_sha256=state.tensors_sha256,
        error=state.error,
    )
    message.create_time.FromDatetime(state.create_time)
    if state.end_time is not None:
        message.end_time.FromDatetime(state.end_time)
    return message


def page(conversions: list[Conversion], page_size: int, page_token: str) -> pb.ListConversionsResponse:
    """One page of a list in order, newest first. Raises InvalidFields for a token that no page gave out."""
    start = _position(conversions, page_token)
    chosen = conversions[start : start + (page_size or 100)]
    more = start + len(chosen) < len(conversions)
    token = f"{chosen[-1].create_time.timestamp()!r} {chosen[-1].id}" if chosen and more else ""
    return pb.ListConversionsResponse(conversions=map(conversion, chosen), next_page_token=token)


def _position(conversions: list[Conversion], token: str) -> int:
    """Where the page after `token` begins. The token says the last one's place, so it may be gone since."""
    if not token:
        return 0
    seconds, _, conversion_id = token.partition(" ")
    try:
        last = (datetime.fromtimestamp(float(seconds), UTC), conversion_id)
    except (ValueError, OverflowError, OSError):
        raise InvalidFields(FieldViolation("page_token", "not a next_page_token of this service")) from None
    return sum(1 for one in conversions if (one.create_time, one.id) >= last)


def _clean(text: str) -> str:
    """Protobuf strings are UTF-8; headers of strangers need not be."""
    return text[:_MAX_METADATA_CHARACTERS].encode("utf-8", "replace").decode()
