"""`darkroom session export` and `import` against a real trainer: files that break, go on, are damaged, come back."""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest
from darkroom.trainer.v1 import session_pb2 as pb
from darkroom_cli.archive_file import INDEX, opened, unfinished_etag
from darkroom_cli.clients import Clients
from darkroom_cli.commands import session_archive
from darkroom_cli.output import UsageProblem

from tests.darkroom_cli.conftest import TrainerForCommands, code_of
from tests.darkroom_cli.test_output import Failed


@pytest.fixture
def tar(trainer: TrainerForCommands, tmp_path: Path) -> Path:
    """An exported session of three photos."""
    trainer.session("toy", num_photos=3)
    trainer.sessions.SetCaption(pb.SetCaptionRequest(image="sessions/toy/images/1.png", text="a toy"))
    file = tmp_path / "toy.tar"
    done = trainer.darkroom("session", "export", "toy", str(file))
    assert done.exit_code == 0, done.output
    return file


def change(trainer: TrainerForCommands) -> None:
    trainer.sessions.SetCaption(pb.SetCaptionRequest(image="sessions/toy/images/2.png", text="another"))


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 1
    file.write_bytes(data)


def place_of(file: Path, name: str) -> int:
    with tarfile.open(file) as archive:
        return archive.getmember(name).offset_data + 60


class TestExport:
    def test_the_file_is_whole_and_says_what_is_in_it(self, trainer: TrainerForCommands, tar: Path) -> None:
        with tarfile.open(tar) as archive:
            names = archive.getnames()
        assert names[0] == INDEX
        assert {"session.json", "instance_images/2.png", "captions/1.txt"} <= set(names)
        assert not tar.with_name("toy.tar.part").exists()
        said = json.loads(trainer.darkroom("session", "export", "toy", f"{tar}.2", "--json").stdout)
        assert (said["size_bytes"], said["num_entries"]) == (tar.stat().st_size, len(names) - 1)
        assert Path(f"{tar}.2").read_bytes() == tar.read_bytes()

    def test_a_file_that_is_there_is_left_alone(self, trainer: TrainerForCommands, tar: Path) -> None:
        before = tar.read_bytes()
        done = trainer.darkroom("session", "export", "toy", str(tar))
        assert (done.exit_code, f"{tar} is there already" in done.stderr) == (1, True)
        assert tar.read_bytes() == before

    @pytest.mark.parametrize("kept", [0, 100, 700, 8000, 1.0])
    def test_one_that_broke_goes_on(self, trainer: TrainerForCommands, tar: Path, kept: float) -> None:
        whole = tar.read_bytes()
        part = tar.with_name("toy.tar.part")
        part.write_bytes(whole[: len(whole) if kept == 1.0 else int(kept)])
        tar.unlink()
        assert trainer.darkroom("session", "export", "toy", str(tar)).exit_code == 0
        assert tar.read_bytes() == whole
        assert not part.exists()

    def test_what_was_there_is_not_fetched_again_but_verified(self, trainer: TrainerForCommands, tar: Path) -> None:
        part = tar.with_name("toy.tar.part")
        place = place_of(tar, "instance_images/0.png")
        part.write_bytes(tar.read_bytes()[: place + 10])
        flip(part, place)
        tar.unlink()
        done = trainer.darkroom("session", "export", "toy", str(tar))
        assert done.exit_code == 1
        assert "instance_images/0.png" in done.stderr
        assert "export again" in done.stderr
        assert not part.exists()
        assert not tar.exists()

    def test_a_session_that_changed_is_exported_anew(self, trainer: TrainerForCommands, tar: Path) -> None:
        old = tar.read_bytes()
        tar.with_name("toy.tar.part").write_bytes(old[:-3000])
        tar.unlink()
        change(trainer)
        done = trainer.darkroom("session", "export", "toy", str(tar))
        assert done.exit_code == 0
        assert "begins anew" in done.stderr
        with tarfile.open(tar) as archive:
            assert "captions/2.txt" in archive.getnames()

    def test_a_session_that_does_not_exist(self, trainer: TrainerForCommands, tmp_path: Path) -> None:
        done = trainer.darkroom("session", "export", "nobody", str(tmp_path / "x.tar"))
        assert (done.exit_code, "'nobody' does not exist" in done.stderr) == (1, True)
        assert not (tmp_path / "x.tar").exists()


class TestImport:
    def test_under_another_name_and_again(self, trainer: TrainerForCommands, tar: Path) -> None:
        said = json.loads(trainer.darkroom("session", "import", str(tar), "--as", "copy", "--json").stdout)
        assert (said["session"]["name"], said["session"]["num_images"], said["unchanged"]) == (
            "sessions/copy",
            3,
            False,
        )
        done = trainer.darkroom("session", "import", str(tar), "--as", "copy")
        assert done.exit_code == 0
        assert "nothing was changed" in done.stderr
        for number in range(3):
            name = f"instance_images/{number}.png"
            assert trainer.store.get(f"sessions/copy/{name}") == trainer.store.get(f"sessions/toy/{name}")

    def test_after_the_session_was_deleted(self, trainer: TrainerForCommands, tar: Path) -> None:
        trainer.sessions.DeleteSession(pb.DeleteSessionRequest(name="sessions/toy"))
        assert trainer.darkroom("session", "import", str(tar)).exit_code == 0
        assert trainer.darkroom("session", "export", "toy", f"{tar}.2").exit_code == 0
        assert Path(f"{tar}.2").read_bytes() == tar.read_bytes()

    def test_over_another_content_is_refused(self, trainer: TrainerForCommands, tar: Path) -> None:
        change(trainer)
        done = trainer.darkroom("session", "import", str(tar))
        assert done.exit_code == 1
        assert "session 'toy' already exists; it has other content than the archive (captions/2.txt)" in done.stderr

    def test_a_flipped_byte_is_refused_and_nothing_appears(self, trainer: TrainerForCommands, tar: Path) -> None:
        flip(tar, place_of(tar, "instance_images/1.png"))
        done = trainer.darkroom("session", "import", str(tar), "--as", "copy")
        assert done.exit_code == 1
        assert "instance_images/1.png of the archive is damaged" in done.stderr
        with pytest.raises(grpc.RpcError) as caught:
            trainer.sessions.GetSession(pb.GetSessionRequest(name="sessions/copy"))
        assert code_of(caught.value) == grpc.StatusCode.NOT_FOUND

    @pytest.mark.parametrize("kept", [0, 300, 600, 5000])
    def test_a_file_that_was_cut(self, trainer: TrainerForCommands, tar: Path, kept: int) -> None:
        tar.write_bytes(tar.read_bytes()[:kept])
        done = trainer.darkroom("session", "import", str(tar), "--as", "copy")
        assert done.exit_code == 1
        assert str(tar) in done.stderr
        assert "Traceback" not in done.output

    def test_what_is_no_archive(self, trainer: TrainerForCommands, tmp_path: Path) -> None:
        (tmp_path / "x.tar").write_text("hello " * 1000)
        done = trainer.darkroom("session", "import", str(tmp_path / "x.tar"))
        assert (done.exit_code, "is no session archive" in done.stderr) == (1, True)
        done = trainer.darkroom("session", "import", str(tmp_path / "none.tar"))
        assert (done.exit_code, "none.tar: No such file" in done.stderr) == (1, True)
        assert trainer.darkroom("session", "import", str(tmp_path / "x.tar"), "--as", "Bad Name").exit_code == 2


class Breaking:
    """The stubs of a service that goes away once, after so many answers of one call."""

    def __init__(self, sessions: Any, call: str, num_answers: int) -> None:
        self._sessions, self._call, self._left = sessions, call, num_answers
        self.asked: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        return self._breaking if name == self._call else getattr(self._sessions, name)

    def _breaking(self, request: Any) -> Iterator[Any]:
        self.asked.append(request)
        breaks = len(self.asked) == 1
        call = getattr(self._sessions, self._call)(request)
        for number, answer in enumerate(call):
            if breaks and number == self._left:
                call.cancel()
                raise Failed(grpc.StatusCode.UNAVAILABLE, "away")
            yield answer


class TestOutage:
    """A service that goes away in the middle is waited for, and nothing is done twice."""

    def test_an_export_goes_on(self, trainer: TrainerForCommands, tmp_path: Path) -> None:
        trainer.session("toy")
        trainer.store.put("sessions/toy/instance_images/big.png", bytes(5 << 20))
        breaking = Breaking(trainer.sessions, "ExportSession", 3)
        header = session_archive._download(clients(breaking), "sessions/toy", tmp_path / "part", True)
        assert [request.offset for request in breaking.asked] == [0, 2 << 20]
        assert breaking.asked[1].etag == header.etag
        session_archive._verify(tmp_path / "part", header)

    def test_an_import_goes_on(self, trainer: TrainerForCommands, tar: Path) -> None:
        breaking = Breaking(trainer.sessions, "ImportSession", 4)
        with opened(tar) as archive:
            result = session_archive._upload(clients(breaking), archive, "copy")
        assert len(breaking.asked) == 2
        assert result.session.num_images == 3


def clients(sessions: Any) -> Clients:
    """Stubs of which only these are used."""
    return Clients(**dict.fromkeys((field.name for field in fields(Clients)), None) | {"sessions": sessions})


class TestFile:
    """Archives without a service."""

    def test_another_tar_is_named_by_its_first_entry(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "x.tar", "w") as archive:
            archive.addfile(tarfile.TarInfo("readme.txt"))
        with pytest.raises(UsageProblem, match=r"its first entry is 'readme\.txt'"), opened(tmp_path / "x.tar"):
            pass

    @pytest.mark.parametrize("size_bytes", [3, 5])
    def test_an_entry_that_is_missing_or_of_another_size(self, tmp_path: Path, size_bytes: int) -> None:
        entry = {"path": "session.json", "size_bytes": 4, "sha256": "0" * 64}
        write(tmp_path / "x.tar", {INDEX: json.dumps({"entries": [entry]}).encode()})
        with pytest.raises(UsageProblem, match="nothing of that name"), opened(tmp_path / "x.tar"):
            pass
        write(tmp_path / "x.tar", {INDEX: json.dumps({"entries": [entry]}).encode(), "session.json": b"x" * size_bytes})
        with pytest.raises(UsageProblem, match=f"the tar has {size_bytes} bytes"), opened(tmp_path / "x.tar"):
            pass

    def test_the_etag_of_an_unfinished_export_needs_its_whole_index(self, tmp_path: Path) -> None:
        write(tmp_path / "x.tar", {INDEX: b"{}" * 500})
        whole, part = (tmp_path / "x.tar").read_bytes(), tmp_path / "x.part"
        assert unfinished_etag(part) == ""
        for size in (0, 511, 512, 512 + 999):
            part.write_bytes(whole[:size])
            assert unfinished_etag(part) == ""
        part.write_bytes(whole[: 512 + 1000])
        assert len(unfinished_etag(part)) == 64


def write(path: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
