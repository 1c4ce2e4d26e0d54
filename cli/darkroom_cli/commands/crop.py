"""`darkroom crop`: squares around faces or the salient region."""

from pathlib import Path
from typing import Annotated

import typer
from darkroom.trainer.v1 import session_pb2 as pb

from darkroom_cli.clients import Clients, connect
from darkroom_cli.output import JsonFlag, print_table, progress_bar, readable_errors


def crop(
    session: Annotated[str, typer.Argument(help="The session.")],
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
        rows = [
            (
                result.image.rsplit("/", 1)[1],
                pb.CropMethod.Name(result.method).removeprefix("CROP_METHOD_").lower(),
                f"{result.edge_px} px at {result.left_px},{result.top_px}",
                result.error,
            )
            for result in results
        ]
        print_table(("Image", "Found by", "Square", "Error"), rows, as_json)
        if any(result.error for result in results):
            raise typer.Exit(1)


def crop_session(clients: Clients, session: str, size: int, preview: Path | None = None) -> list[pb.CropResult]:
    """Crop with a bar; with a folder, only preview into it."""
    fields = {"session": f"sessions/{session}", "size_px": size}
    if preview is None:
        stream = clients.sessions.ApplyCrop(pb.ApplyCropRequest(**fields))  # type: ignore[arg-type]
    else:
        stream = clients.sessions.PreviewCrop(pb.PreviewCropRequest(**fields))  # type: ignore[arg-type]
    results = []
    with progress_bar() as bar:
        task = bar.add_task("cropping", total=None, note="")
        for result in stream:
            bar.update(task, completed=result.num_done, total=result.num_total, note=result.image.rsplit("/", 1)[1])
            if preview is not None and result.data:
                stem = Path(result.image.rsplit("/", 1)[1]).stem
                (preview / f"{stem}.png").write_bytes(result.data)
            results.append(result)
    return results
