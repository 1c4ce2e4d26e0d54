"""`darkroom crop`: squares around faces or the salient region."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from darkroom.trainer.v1 import session_pb2 as pb

from darkroom_cli.clients import Clients, connect
from darkroom_cli.commands.session import SessionName
from darkroom_cli.output import JsonFlag, print_table, progress_bar, readable_errors
from darkroom_cli.watching import follow


def crop(
    session: SessionName,
    size: Annotated[int, typer.Option(help="Edge of the square in pixels, a multiple of 8.")] = 512,
    preview: Annotated[
        Path | None, typer.Option(help="Write the squares into this folder and leave the session as it is.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Replace a session's images by smart crops, or look at them first with --preview."""
    with readable_errors(), connect() as clients:
        if preview is not None:
            preview.mkdir(parents=True, exist_ok=True)
        results = crop_session(clients, session, size, preview)
        rows = [(result.image.rsplit("/", 1)[1], *_placed(result), result.error) for result in results]
        for result in results:
            result.ClearField("data")  # The pictures are in the folder.
        print_table(("Image", "Found by", "Square", "Error"), rows, as_json, results)
        if any(result.error for result in results):
            raise typer.Exit(1)


def crop_session(clients: Clients, session: str, size: int, preview: Path | None = None) -> list[pb.CropResult]:
    """Crop with a bar; with a folder, only preview into it. A trainer that goes away meanwhile is waited for."""
    fields = {"session": f"sessions/{session}", "size_px": size}

    def stream() -> Iterable[pb.CropResult]:
        """Images that have been cropped come back as they are."""
        answered: Iterable[pb.CropResult]
        if preview is None:
            answered = clients.sessions.ApplyCrop(pb.ApplyCropRequest(**fields))  # type: ignore[arg-type]
        else:
            answered = clients.sessions.PreviewCrop(pb.PreviewCropRequest(**fields))  # type: ignore[arg-type]
        return answered

    results: dict[str, pb.CropResult] = {}
    with progress_bar() as bar:
        task = bar.add_task("cropping", total=None, note="")
        for result in follow(stream, must_answer=True):
            bar.update(task, completed=result.num_done, total=result.num_total, note=result.image.rsplit("/", 1)[1])
            if preview is not None and result.data:
                (preview / _as_png(result.image.rsplit("/", 1)[1])).write_bytes(result.data)
            if result.image not in results or results[result.image].error:
                results[result.image] = result  # the first tells how it was cropped, a later one that it was
    return list(results.values())


def _placed(result: pb.CropResult) -> tuple[str, str]:
    """How and where, for people; empty if it was not placed."""
    if result.error:
        return "", ""
    method = pb.CropMethod.Name(result.method).removeprefix("CROP_METHOD_").lower()
    return method, f"{result.edge_px} px at {result.left_px},{result.top_px}"


def _as_png(filename: str) -> str:
    """A name for the PNG of an image; its own ending stays, so that a.jpg and a.png do not meet."""
    return filename if filename.endswith(".png") else f"{filename}.png"
