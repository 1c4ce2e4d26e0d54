"""`darkroom bucket setup` against a real store."""

import json
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from artifacts import lifecycle
from artifacts.s3 import connect, connection_pool
from artifacts.store import ObjectStore, StoreConfig
from darkroom_cli.__main__ import app
from darkroom_cli.model_folders import model_folders
from minio import Minio
from minio.commonconfig import ENABLED, Filter
from minio.error import S3Error
from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule
from typer.testing import CliRunner
from urllib3.response import HTTPResponse


@pytest.fixture
def target(store_config: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> Iterator[StoreConfig]:
    """A bucket that does not exist yet, named by the environment."""
    config = replace(store_config, bucket=f"test-{secrets.token_hex(6)}")
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", config.endpoint)
    monkeypatch.setenv("DARKROOM_S3_ACCESS_KEY", config.access_key)
    monkeypatch.setenv("DARKROOM_S3_SECRET_KEY", config.secret_key)
    monkeypatch.setenv("DARKROOM_S3_BUCKET", config.bucket)
    yield config
    ObjectStore(config).ensure_bucket()
    ObjectStore(config).delete_bucket()


def setup(*arguments: str) -> Any:
    return CliRunner().invoke(app, ("bucket", "setup", *arguments))


def report(*arguments: str) -> dict[str, Any]:
    done = setup("--json", *arguments)
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_second_time_changes_nothing(target: StoreConfig, tiny_models: Path) -> None:
    first = report("--models", str(tiny_models))
    assert (first["bucket"], first["lifecycle"]) == (target.bucket, "rule set")
    assert {model["prefix"]: model["state"] for model in first["models"]} == {
        "controlnets/controlnet-canny-tiny/": "uploaded",
        "models/sd15-tiny/": "uploaded",
    }
    store = ObjectStore(target)
    before = {found.key: found.modified for found in store.list("")}
    second = report("--models", str(tiny_models))
    assert {found.key: found.modified for found in store.list("")} == before
    assert second["lifecycle"] == "rule present"
    assert {model["state"] for model in second["models"]} == {"present"}


def test_what_is_uploaded_are_the_files(target: StoreConfig, tiny_models: Path) -> None:
    report("--models", str(tiny_models))
    store = ObjectStore(target)
    assert {found.key.split("/")[1] for found in store.list("")} == {"sd15-tiny", "controlnet-canny-tiny"}
    folder = tiny_models / "controlnet-canny-tiny"
    for path in folder.iterdir():
        assert store.get(f"controlnets/{folder.name}/{path.name}") == path.read_bytes()


def test_half_an_upload_is_completed(target: StoreConfig, tiny_models: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_models / "controlnet-canny-tiny", tmp_path / "edges")
    (model,) = model_folders(tmp_path)
    store = ObjectStore(target)
    store.ensure_bucket()
    for file in model.files[:-1]:  # killed before the last
        store.put(f"controlnets/edges/{file}", b"half")
    assert report("--models", str(tmp_path))["models"][0]["state"] == "uploaded"
    for file in model.files:
        assert store.get(f"controlnets/edges/{file}") == (model.path / file).read_bytes()


def test_a_model_that_is_there_is_not_replaced(target: StoreConfig, tiny_models: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_models / "controlnet-canny-tiny", tmp_path / "edges")
    store = ObjectStore(target)
    store.ensure_bucket()
    store.put("controlnets/edges/config.json", b"somebody's own")
    assert report("--models", str(tmp_path))["models"][0]["state"] == "present"
    assert store.get("controlnets/edges/config.json") == b"somebody's own"


def test_other_rules_of_the_bucket_stay(target: StoreConfig) -> None:
    client = connect(target, connection_pool(target))
    client.make_bucket(target.bucket)
    theirs = Rule(ENABLED, rule_filter=Filter(prefix="trash/"), rule_id="theirs", expiration=Expiration(days=3))
    client.set_bucket_lifecycle(target.bucket, LifecycleConfig([theirs]))
    assert report()["lifecycle"] == "rule set"
    found = client.get_bucket_lifecycle(target.bucket)
    assert found is not None
    assert {rule.rule_id for rule in found.rules} == {"theirs", lifecycle.RULE_ID}


def test_the_rule_is_left_alone_if_so_wished(target: StoreConfig) -> None:
    assert report("--no-lifecycle")["lifecycle"] == "left alone"
    client = connect(target, connection_pool(target))
    assert client.get_bucket_lifecycle(target.bucket) is None


@pytest.mark.parametrize(("code", "exit_code"), [("MalformedXML", 0), ("NotImplemented", 0), ("AccessDenied", 1)])
def test_a_store_without_such_rules_is_no_failure(
    target: StoreConfig, monkeypatch: pytest.MonkeyPatch, code: str, exit_code: int
) -> None:
    """The embedded store knows the rule, so its refusal is made up: with MinIO's words."""

    def refuse(client: Minio, bucket: str, rules: LifecycleConfig) -> None:
        answer = HTTPResponse(status=400)
        raise S3Error(answer, code, "The XML you provided was not well-formed", bucket, None, None)

    monkeypatch.setattr(Minio, "set_bucket_lifecycle", refuse)
    done = setup("--json")
    assert done.exit_code == exit_code
    assert code in done.stderr
    assert exit_code or json.loads(done.stdout)["lifecycle"] == "not supported"


def test_a_person_reads_words(target: StoreConfig, tiny_models: Path) -> None:
    done = setup("--models", str(tiny_models))
    assert f"bucket {target.bucket!r}" in done.stdout
    assert "uploaded  models/sd15-tiny/" in done.stdout


def test_wrong_credentials_are_named(target: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_S3_SECRET_KEY", "wrong")
    done = setup()
    assert done.exit_code == 1
    assert "check DARKROOM_S3_ACCESS_KEY, DARKROOM_S3_SECRET_KEY" in done.stderr


def test_settings_that_lack_are_named(target: StoreConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARKROOM_S3_ACCESS_KEY")
    done = setup()
    assert done.exit_code == 1
    assert "DARKROOM_S3_ACCESS_KEY is not set" in done.stderr


def test_a_store_that_does_not_answer_is_waited_for_and_named(
    target: StoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_S3_ENDPOINT", "127.0.0.1:9")
    monkeypatch.setenv("DARKROOM_S3_RETRIES", "0")
    done = setup("--wait", "1.5")
    assert done.exit_code == 1
    assert done.stderr.count("waiting:") == 2
    assert "127.0.0.1:9 is not available" in done.stderr
