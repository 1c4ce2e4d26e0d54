"""`darkroom convert`, `darkroom inspect`: checkpoints in another layout."""

from enum import StrEnum
from typing import Annotated

import typer
from darkroom.converter.v1 import converter_pb2 as pb

from darkroom_cli.clients import Clients, connect
from darkroom_cli.output import JsonFlag, print_error, print_message, progress_bar, readable_errors
from darkroom_cli.watching import follow


class Format(StrEnum):
    """Layouts by the names people type."""

    DIFFUSERS = "diffusers"
    SAFETENSORS = "safetensors"
    CKPT = "ckpt"


class Precision(StrEnum):
    """Number formats by the names people type; KEEP leaves the source's."""

    KEEP = "keep"
    FP32 = "fp32"
    FP16 = "fp16"
    BF16 = "bf16"


_PRECISIONS = {
    Precision.KEEP: pb.PRECISION_UNSPECIFIED,
    Precision.FP32: pb.PRECISION_FP32,
    Precision.FP16: pb.PRECISION_FP16,
    Precision.BF16: pb.PRECISION_BF16,
}
_FORMATS = {
    Format.DIFFUSERS: pb.FORMAT_DIFFUSERS,
    Format.SAFETENSORS: pb.FORMAT_SAFETENSORS,
    Format.CKPT: pb.FORMAT_CKPT,
}


def convert(
    checkpoint: Annotated[str, typer.Argument(help="The published checkpoint to read.")],
    to: Annotated[Format, typer.Option("--to", help="Layout to write.")] = Format.SAFETENSORS,
    precision: Annotated[Precision, typer.Option(help="Number format to write.")] = Precision.KEEP,
    name: Annotated[str, typer.Option(help="Name of the new checkpoint; default the source's with an ending.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Write a checkpoint in another layout, every tensor proved. Safe to repeat."""
    with readable_errors(), connect() as clients:
        done = run_conversion(clients, checkpoint, to, precision, name)
        lines = [
            ("checkpoint", done.checkpoint.removeprefix("checkpoints/")),
            ("state", pb.ConversionState.Name(done.state).removeprefix("CONVERSION_STATE_")),
            ("tensors proved", f"{done.num_tensors_proved} of {done.num_tensors}"),
            ("tensors sha256", done.tensors_sha256),
        ]
        print_message(done, as_json, lines)
        if done.state != pb.CONVERSION_STATE_SUCCEEDED:
            print_error(f"not converted: {done.error}")
            raise typer.Exit(1)


def inspect(
    source: Annotated[str, typer.Argument(help="A checkpoint, or a key below models/ or checkpoints/ in the bucket.")],
    as_json: JsonFlag = False,
) -> None:
    """Say what a checkpoint is, from its headers alone."""
    with readable_errors(), connect() as clients:
        if "/" in source.removeprefix("checkpoints/"):
            request = pb.InspectRequest(object=source)
        else:
            request = pb.InspectRequest(checkpoint=_resource(source))
        found = clients.converter.Inspect(request)
        lines = [
            ("format", pb.Format.Name(found.format).removeprefix("FORMAT_").lower()),
            ("architecture", found.architecture),
            ("precision", pb.Precision.Name(found.precision).removeprefix("PRECISION_").lower()),
            ("prediction type", found.prediction_type or "not said"),
            ("tensors", f"{found.num_tensors} ({found.num_bytes:,} bytes)"),
            ("components", ", ".join(found.components)),
            ("missing", ", ".join(found.missing) or "nothing"),
            ("bytes read", f"{found.num_bytes_read:,}"),
        ]
        print_message(found, as_json, lines)


def run_conversion(
    clients: Clients, checkpoint: str, to: Format, precision: Precision = Precision.KEEP, name: str = ""
) -> pb.Conversion:
    """Start a conversion and follow it with a bar until it ends."""
    done = clients.converter.CreateConversion(
        pb.CreateConversionRequest(
            source=_resource(checkpoint), format=_FORMATS[to], precision=_PRECISIONS[precision], checkpoint_id=name
        )
    )
    with progress_bar() as bar:
        task = bar.add_task(f"converting to {to}", total=None, note="tensors")
        request = pb.WatchConversionRequest(name=done.name)
        for done in follow(lambda: clients.converter.WatchConversion(request)):
            bar.update(task, completed=done.num_tensors_done, total=done.num_tensors or None)
    return done


def _resource(checkpoint: str) -> str:
    return checkpoint if checkpoint.startswith("checkpoints/") else f"checkpoints/{checkpoint}"
