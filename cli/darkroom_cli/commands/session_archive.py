"""`darkroom session export` and `import`: a session as one tar."""

import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from darkroom.trainer.v1 import session_pb2 as pb

from darkroom_cli.archive_file import CHUNK_BYTES, ArchiveFile, opened, unfinished_etag
from darkroom_cli.clients import Clients, connect
from darkroom_cli.commands.session import SessionName, check_session
from darkroom_cli.output import (
    JsonFlag,
    UsageProblem,
    console,
    print_json,
    print_message,
    progress_bar,
    readable_errors,
)
from darkroom_cli.watching import follow

_MIB = 1024 * 1024
# A session that is edited all the time cannot be exported; after so many beginnings the error is shown.
_MAX_BEGINNINGS = 3


def _check_or_empty(name: str) -> str:
    return check_session(name) if name else name


def export_session(
    session: SessionName,
    file: Annotated[Path, typer.Argument(help="The tar to write; FILE.part beside it until it is whole.")],
    no_checkpoints: Annotated[
        bool, typer.Option("--no-checkpoints", help="Leave out the trained checkpoints, which are big.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a session into one tar: images, captions, recipes, checkpoints. One that broke goes on where it was."""
    with readable_errors(), connect() as clients:
        if file.exists():
            raise UsageProblem(f"{file} is there already; remove it or name another file")
        part = file.with_name(file.name + ".part")
        header = _download(clients, f"sessions/{session}", part, not no_checkpoints)
        _verify(part, header)
        part.replace(file)
        facts = {
            "file": str(file),
            "size_bytes": header.size_bytes,
            "etag": header.etag,
            "num_entries": header.num_entries,
            "num_checkpoints": header.num_checkpoints,
        }
        if as_json:
            print_json(facts)
        else:
            print(f"{file}: {header.size_bytes} bytes, {header.num_entries} files verified")
            print(f"checkpoints in it: {header.num_checkpoints}")


def import_session(
    file: Annotated[Path, typer.Argument(help="A tar as `darkroom session export` writes it.")],
    name: Annotated[
        str,
        typer.Option(
            "--as", help="Name of the session to make; default that of the exported one.", callback=_check_or_empty
        ),
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Make a session out of an exported one. Repeated after a break, it sends only what is missing."""
    with readable_errors(), connect() as clients, opened(file) as archive:
        result = _upload(clients, archive, name)
        lines: list[tuple[str, object]] = [
            ("session", result.session.name.removeprefix("sessions/")),
            ("images", result.session.num_images),
            ("captions", result.session.num_captions),
            ("checkpoints published", len(result.checkpoints)),
        ]
        print_message(result, as_json, lines)
        if result.unchanged:
            console.print("everything was there already; nothing was changed")


def _download(clients: Clients, name: str, part: Path, include_checkpoints: bool) -> pb.ExportHeader:
    """Bring the rest of the tar into `part`, beginning anew if the session is no longer the same."""
    for beginning in range(_MAX_BEGINNINGS):
        try:
            return _download_rest(clients, name, part, include_checkpoints)
        except grpc.RpcError as error:
            call: Any = error
            is_stale = call.code() in (grpc.StatusCode.ABORTED, grpc.StatusCode.OUT_OF_RANGE)
            if not is_stale or beginning == _MAX_BEGINNINGS - 1:
                raise
        console.print(f"{part} is of an earlier state of the session; the export begins anew", markup=False)
        part.unlink()
    raise AssertionError("the loop ends by return or raise")


def _download_rest(clients: Clients, name: str, part: Path, include_checkpoints: bool) -> pb.ExportHeader:
    header = pb.ExportHeader()
    with progress_bar() as bar, part.open("ab") as file:

        def answers() -> Iterator[pb.ExportSessionResponse]:
            """What the service answers from the end of the file on; of a file without a whole index from its beginning."""
            file.flush()
            etag = unfinished_etag(part)
            offset = file.truncate(part.stat().st_size if etag else 0)
            request = pb.ExportSessionRequest(
                name=name, include_checkpoints=include_checkpoints, offset=offset, etag=etag
            )
            bar.update(task, completed=offset // _MIB)
            answered: Iterator[pb.ExportSessionResponse] = clients.sessions.ExportSession(request)
            return answered

        task = bar.add_task("exporting, MiB", total=None, note=part.name)
        for answer in follow(answers):
            if answer.HasField("header"):
                header = answer.header
                bar.update(task, total=header.size_bytes / _MIB)
            else:
                file.write(answer.data)
                bar.advance(task, len(answer.data) / _MIB)
    return header


def _verify(part: Path, header: pb.ExportHeader) -> None:
    """Hold the whole file to the header and to its own index. A file that fails goes. Raises UsageProblem."""
    try:
        with opened(part) as archive:
            archive.verify()
        found = part.stat().st_size, archive.etag
        if found != (header.size_bytes, header.etag):
            raise UsageProblem(f"{part} has (bytes, etag) {found}, expected {(header.size_bytes, header.etag)}")
    except UsageProblem as error:
        part.unlink()
        raise UsageProblem(f"{error}; the file was removed, export again") from error


def _upload(clients: Clients, archive: ArchiveFile, name: str) -> pb.ImportResult:
    """Import the archive, sending what the service asks for. Raises UsageProblem if the file cannot be read."""
    result = pb.ImportResult()
    with progress_bar() as bar:
        task = bar.add_task("importing, MiB", total=None, note="")
        sending = _Sending(archive, name)
        try:
            for answer in follow(lambda: clients.sessions.ImportSession(sending.requests())):
                part = answer.WhichOneof("part")
                if part == "missing":
                    missing = answer.missing
                    note = f"{len(missing.paths)} of {len(archive.sizes)} files have to be sent"
                    bar.update(task, total=missing.size_bytes / _MIB, completed=0, note=note)
                    sending.wanted.put(list(missing.paths))
                elif part == "stored":
                    bar.update(task, advance=archive.sizes.get(answer.stored, 0) / _MIB, note=answer.stored)
                else:
                    result = answer.result
        except grpc.RpcError:
            if sending.problem:  # it made us end the stream too early, of which the service complains
                raise sending.problem from None
            raise
        finally:
            sending.wanted.put([])
    return result


class _Sending:
    """The requests of an import. They are made in a thread of grpc, which waits there for what is wanted."""

    def __init__(self, archive: ArchiveFile, name: str) -> None:
        self._archive = archive
        self._name = name
        self.wanted: queue.SimpleQueue[list[str]] = queue.SimpleQueue()
        self.problem: UsageProblem | OSError | None = None

    def requests(self) -> Iterator[pb.ImportSessionRequest]:
        """Header and index, then each wanted entry; for a new call. What goes wrong with the file is left in `problem`."""
        self.wanted.put([])  # the thread of a call that broke may still wait
        self.wanted = queue.SimpleQueue()
        return self._parts(self.wanted)

    def _parts(self, wanted: "queue.SimpleQueue[list[str]]") -> Iterator[pb.ImportSessionRequest]:
        index = self._archive.index
        yield pb.ImportSessionRequest(header=pb.ImportHeader(session_id=self._name, index_bytes=len(index)))
        for start in range(0, len(index), CHUNK_BYTES):
            yield pb.ImportSessionRequest(index=index[start : start + CHUNK_BYTES])
        try:
            for path in wanted.get():
                yield pb.ImportSessionRequest(entry=path)
                for chunk in self._archive.read(path):
                    yield pb.ImportSessionRequest(data=chunk)
        except (UsageProblem, OSError) as error:
            self.problem = error
