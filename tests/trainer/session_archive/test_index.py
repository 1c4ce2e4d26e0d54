"""What the index of a session archive may say at all."""

import json

import pytest
from artifacts.records import encode
from trainer.archive_index import Entry, Index, decode, etag
from trainer.errors import ArchiveInvalid

from tests.trainer.session_archive.conftest import digest


class TestIndex:
    """What an index may say at all."""

    def test_it_comes_back_and_its_digest_is_the_etag(self) -> None:
        wanted = index("captions/one.txt", "checkpoints/a.b/manifest.json", "checkpoints/a.b/unet/x.bin")
        assert decode(wanted.encode()) == wanted
        assert etag(wanted.encode()) == digest(wanted.encode())
        assert wanted.checkpoints == ["a.b"]

    @pytest.mark.parametrize(
        "path",
        [
            "../evil.txt",
            "/etc/passwd",
            "instance_images/../session.json",
            "instance_images/../../other/session.json",
            "instance_images/.hidden.png",
            "instance_images/sub/one.png",
            "instance_images\\one.png",
            "instance_images/a\\b.png",
            "instance_images/a\nb.png",
            "instance_images/",
            "instance_images",
            "captions/one.exe",
            "runs/first/events/01-00000001.jsonl",
            "runs/../recipe.json",
            "checkpoints/UPPER/manifest.json",
            "checkpoints/../sessions/x",
            "checkpoints/ok/../../x",
            "checkpoints/ok",
            "checkpoints/no-manifest/model.bin",
            "class_images/1.png",
            "darkroom-session.json",
            "readme.txt",
            "",
        ],
    )
    def test_places_where_nothing_belongs(self, path: str) -> None:
        with pytest.raises(ArchiveInvalid) as caught:
            decode(index(path).encode())
        assert repr(path) in str(caught.value) or "no-manifest" in str(caught.value)

    @pytest.mark.parametrize(
        "entry",
        [
            {"path": "captions/a.txt", "size_bytes": -1, "sha256": "0" * 64},
            {"path": "captions/a.txt", "size_bytes": True, "sha256": "0" * 64},
            {"path": "captions/a.txt", "size_bytes": 1.5, "sha256": "0" * 64},
            {"path": "captions/a.txt", "size_bytes": 1, "sha256": "../../x"},
            {"path": "captions/a.txt", "size_bytes": 1, "sha256": "0" * 64, "width_px": "wide"},
            {"path": 7, "size_bytes": 1, "sha256": "0" * 64},
            {"size_bytes": 1},
            "captions/a.txt",
        ],
    )
    def test_entries_that_are_none(self, entry: object) -> None:
        record = json.loads(index().encode())
        record["entries"].insert(0, entry)
        with pytest.raises(ArchiveInvalid):
            decode(signed(record))

    def test_entries_come_once_and_in_order(self) -> None:
        record = json.loads(index("captions/a.txt", "captions/b.txt").encode())
        for entries in (record["entries"][::-1], [*record["entries"], record["entries"][-1]]):
            with pytest.raises(ArchiveInvalid, match="order of path"):
                decode(signed({**record, "entries": entries}))

    @pytest.mark.parametrize("schema", [0, 2, "1"])
    def test_other_schemas(self, schema: object) -> None:
        with pytest.raises(ArchiveInvalid, match="schema"):
            decode(signed({**json.loads(index().encode()), "schema": schema}))

    @pytest.mark.parametrize("data", [b"", b"[]", b"null", b"\xff", b'{"schema": 1}'])
    def test_what_is_no_index(self, data: bytes) -> None:
        with pytest.raises(ArchiveInvalid):
            decode(data)


def index(*paths: str) -> Index:
    """An index of session.json and these."""
    listed = tuple(Entry(path, 1, digest(path.encode())) for path in sorted({*paths, "session.json"}))
    return Index({"name": "robot"}, listed)


def signed(record: dict[str, object]) -> bytes:
    """An index that says this and guards it, as somebody could make it."""
    guarded = {name: value for name, value in record.items() if name != "sha256"}
    return encode(guarded | {"sha256": digest(encode(guarded))})
