"""The manifest: what is written can be read, by this version and by the next."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import pytest
from artifacts import manifest as manifest_module
from artifacts.errors import ManifestInvalid
from artifacts.manifest import FileEntry, Manifest

SHA = "ab" * 32
KEY = "checkpoints/dog/manifest.json"


@pytest.fixture
def manifest(fields: dict[str, Any]) -> Manifest:
    return Manifest(
        id="dog",
        files=(FileEntry("model_index.json", 3, SHA), FileEntry("unet/x.safetensors", 5, SHA)),
        parents=("base",),
        session="dog",
        run="run-1",
        recipe={"steps": 100, "stages": [{"lr": 1e-6, "on": True}]},
        metrics={"loss": 0.25},
        create_time=datetime(2026, 11, 23, 10, 0, tzinfo=UTC),
        title="Ünser Hund",
        writer="0a1b2c3d",
        **fields,
    )


def _decode(record: dict[str, Any] | bytes) -> Manifest:
    return manifest_module.decode(KEY, "dog", record if isinstance(record, bytes) else json.dumps(record).encode())


def _problems(record: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(ManifestInvalid) as caught:
        _decode(record)
    assert caught.value.key == KEY
    return caught.value.problems


def test_round_trip(manifest: Manifest) -> None:
    assert _decode(manifest.encode()) == manifest
    assert manifest.size_bytes == 8
    assert manifest.file("unet/x.safetensors") == manifest.files[1]
    assert manifest.file("nothing") is None


def test_equal_manifests_have_equal_bytes(manifest: Manifest) -> None:
    other = replace(manifest, recipe=MappingProxyType({"stages": [{"on": True, "lr": 1e-6}], "steps": 100}))
    assert other.encode() == manifest.encode()
    assert _decode(manifest.encode()).encode() == manifest.encode()


def test_people_can_read_it(manifest: Manifest) -> None:
    text = manifest.encode().decode()
    assert text.startswith('{\n  "schema": 1,\n  "id": "dog",\n  "format": "diffusers",\n')
    assert '"title": "Ünser Hund"' in text
    assert text.endswith("}\n")


def test_fields_of_a_newer_version_are_ignored(manifest: Manifest) -> None:
    record = json.loads(manifest.encode()) | {"future": {"a": 1}}
    record["files"][0]["future"] = 1
    assert _decode(record) == manifest


def test_missing_fields_are_listed_together() -> None:
    required = ["id", "format", "architecture", "kind", "precision", "prediction_type", "resolution", "base_model"]
    assert _problems({"schema": 1}) == tuple(f"{name}: missing" for name in [*required, "files", "create_time"])


def test_manifest_of_another_checkpoint(manifest: Manifest) -> None:
    record = json.loads(manifest.encode()) | {"id": "cat"}
    assert _problems(record) == ("id: 'cat', but the folder is 'dog'",)


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("x", "object expected"),
        ({"size_bytes": 1, "sha256": SHA}, "path: missing"),
        ({"path": "../../etc/passwd", "size_bytes": 1, "sha256": SHA}, "invalid file path"),
        ({"path": "/etc/passwd", "size_bytes": 1, "sha256": SHA}, "invalid file path"),
        ({"path": "a", "size_bytes": -1, "sha256": SHA}, "size_bytes"),
        ({"path": "a", "size_bytes": "1", "sha256": SHA}, "size_bytes"),
        ({"path": "a", "size_bytes": 1, "sha256": "AB" * 32}, "64 hex digits"),
        ({"path": "a", "size_bytes": 1}, "64 hex digits"),
    ],
)
def test_bad_file_entries(manifest: Manifest, entry: Any, problem: str) -> None:
    record = json.loads(manifest.encode())
    record["files"].append(entry)
    (found,) = _problems(record)
    assert found.startswith("files[2]: ")
    assert problem in found


def test_a_path_may_not_appear_twice(manifest: Manifest) -> None:
    record = json.loads(manifest.encode())
    record["files"] *= 2
    assert _problems(record) == ("files: a path appears twice",)


@pytest.mark.parametrize("writer", ["../other", "a/b", "A", "."])
def test_the_writer_is_a_plain_folder_name(manifest: Manifest, writer: str) -> None:
    (problem,) = _problems(json.loads(manifest.encode()) | {"writer": writer})
    assert problem.startswith("writer:")
