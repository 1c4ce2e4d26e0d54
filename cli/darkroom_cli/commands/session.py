"""`darkroom session`: sessions and their images."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import grpc
import typer
from darkroom.trainer.v1 import session_pb2 as pb

from darkroom_cli.clients import Clients, connect
from darkroom_cli.output import (
    JsonFlag,
    UsageProblem,
    one_line,
    print_json,
    print_message,
    print_table,
    progress_bar,
    readable_errors,
)

app = typer.Typer(no_args_is_help=True, help="Sessions: a named set of photos of one subject.")

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
_CHUNK_BYTES = 256 * 1024
# A file that is no picture or has no usable name, and one that would share its caption file with another (a.jpg, a.png).
_FAULTS_OF_THE_PHOTO = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS)

_SESSION_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")  # as in the proto


def check_session(name: str) -> str:
    """The name as it is. Raises typer.BadParameter, because a pattern from a service tells most people nothing."""
    if not _SESSION_NAME.fullmatch(name):
        raise typer.BadParameter(
            f"{name!r} is no name of a session; use a-z, 0-9 and '-', at most 63, a letter or digit first"
        )
    return name


SessionName = Annotated[str, typer.Argument(help="Name of the session: a-z, 0-9 and '-'.", callback=check_session)]


@app.command()
def create(
    session: SessionName,
    photos: Annotated[list[Path] | None, typer.Argument(help="Photos or folders of photos to upload at once.")] = None,
    base_model: Annotated[str, typer.Option(help="Base model the session is meant for, such as sd15-tiny.")] = "",
    description: Annotated[str, typer.Option(help="A line for people.")] = "",
    as_json: JsonFlag = False,
) -> None:
    """Create a session, and upload photos into it if some are given."""
    with readable_errors(), connect() as clients:
        files = find_photos(photos or [])
        made = clients.sessions.CreateSession(
            pb.CreateSessionRequest(
                session_id=session, session=pb.Session(base_model=base_model, description=description)
            )
        )
        failed = upload_photos(clients, session, files)[1]
        if files:
            made = clients.sessions.GetSession(pb.GetSessionRequest(name=made.name))
        print_message(made, as_json, [("session", session), ("images", made.num_images)])
        _end_if_any(failed)


@app.command("list")
def list_sessions(as_json: JsonFlag = False) -> None:
    """List the sessions."""
    with readable_errors(), connect() as clients:
        sessions = list(_all_sessions(clients))
        rows = [
            (found.name.removeprefix("sessions/"), found.num_images, found.num_captions, found.base_model)
            for found in sessions
        ]
        print_table(("Session", "Images", "Captions", "Base model"), rows, as_json, sessions)


@app.command()
def show(session: SessionName, as_json: JsonFlag = False) -> None:
    """Show a session's images with their sizes and captions."""
    with readable_errors(), connect() as clients:
        images = list(all_images(clients, session))
        rows = [
            (_file(image.name), f"{image.width_px}x{image.height_px}", image.size_bytes, image.caption)
            for image in images
        ]
        print_table(("Image", "Pixels", "Bytes", "Caption"), rows, as_json, images)


@app.command()
def upload(
    session: SessionName,
    photos: Annotated[list[Path], typer.Argument(help="Photos or folders of photos.")],
    as_json: JsonFlag = False,
) -> None:
    """Upload photos; one that is there already is replaced."""
    with readable_errors(), connect() as clients:
        images, failed = upload_photos(clients, session, find_photos(photos))
        rows = [(_file(image.name), f"{image.width_px}x{image.height_px}", image.size_bytes) for image in images]
        print_table(("Image", "Pixels", "Bytes"), rows, as_json, images)
        _end_if_any(failed)


@app.command()
def delete(
    session: SessionName,
    image: Annotated[str, typer.Option(help="Delete only this image and its caption.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Delete a session with everything below it, or one of its images. Published checkpoints stay."""
    with readable_errors(), connect() as clients:
        what = (
            f"image {image} of session {session}" if image else f"session {session} with its images, captions and runs"
        )
        if not yes and not typer.confirm(f"Delete {what}?"):
            raise UsageProblem("nothing was deleted")
        if image:
            clients.sessions.DeleteImage(pb.DeleteImageRequest(name=f"sessions/{session}/images/{image}"))
            num_objects = 1
        else:
            num_objects = clients.sessions.DeleteSession(
                pb.DeleteSessionRequest(name=f"sessions/{session}")
            ).num_objects
        if as_json:
            print_json({"deleted": what, "num_objects": num_objects})
        else:
            print(f"deleted {what}")


def find_photos(paths: list[Path]) -> list[Path]:
    """Image files among the paths and in the folders among them, in order; hidden files are left out.

    Raises UsageProblem for a path that does not exist, another kind of file, and a folder without photos.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if _is_photo(file))
            if not inside:
                raise UsageProblem(f"folder {path} holds no photos ({', '.join(IMAGE_ENDINGS)})")
            found += inside
        elif not path.exists():
            raise UsageProblem(f"{path} does not exist")
        elif not _is_photo(path):
            raise UsageProblem(f"{path} is no photo; accepted are {', '.join(IMAGE_ENDINGS)}")
        else:
            found.append(path)
    return found


def upload_photos(clients: Clients, session: str, photos: list[Path]) -> tuple[list[pb.InstanceImage], list[str]]:
    """Upload files one after another, with a bar; what was stored, and a line for each that was refused.

    Raises RpcError where the next photo would fare no better.
    """
    images, failed = [], []
    with progress_bar() as bar:
        task = bar.add_task("uploading", total=len(photos), note="")
        for photo in photos:
            bar.update(task, note=photo.name)
            try:
                images.append(clients.sessions.UploadImage(upload_parts(session, photo.name, photo.read_bytes())))
            except grpc.RpcError as error:
                if error.code() not in _FAULTS_OF_THE_PHOTO:
                    raise
                failed.append(one_line(error))
            bar.advance(task)
    return images, failed


def upload_parts(session: str, filename: str, data: bytes) -> Iterator[pb.UploadImageRequest]:
    """The messages of one upload: header with size and digest, then the bytes."""
    yield pb.UploadImageRequest(
        header=pb.UploadImageHeader(
            session=f"sessions/{session}",
            filename=filename,
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
        )
    )
    for start in range(0, len(data), _CHUNK_BYTES):
        yield pb.UploadImageRequest(chunk=data[start : start + _CHUNK_BYTES])


def all_images(clients: Clients, session: str) -> Iterator[pb.InstanceImage]:
    """Every image of a session, page by page."""
    token = ""
    while True:
        page = clients.sessions.ListImages(pb.ListImagesRequest(parent=f"sessions/{session}", page_token=token))
        yield from page.images
        token = page.next_page_token
        if not token:
            return


def _all_sessions(clients: Clients) -> Iterator[pb.Session]:
    token = ""
    while True:
        page = clients.sessions.ListSessions(pb.ListSessionsRequest(page_token=token))
        yield from page.sessions
        token = page.next_page_token
        if not token:
            return


def _end_if_any(failed: list[str]) -> None:
    """Raises UsageProblem with the photos that were refused."""
    if failed:
        raise UsageProblem(f"{len(failed)} not uploaded:\n" + "\n".join(f"  {line}" for line in failed))


def _is_photo(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")


def _file(image: str) -> str:
    return image.rsplit("/", 1)[1]
