"""A Job that was made for a cluster, carried out on this machine: the same manifest, but this machine's store and credentials."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts.records import encode
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import training_pb2 as pb
from jobs.execution_file import read_execution
from jobs.recipe import Recipe, StageSettings
from jobs.render import render
from jobs.run_spec import RunSpec
from trainer.config import TrainerConfig

from tests.jobs.test_execution_file import EVERYTHING
from tests.jobs.test_render import SPEC
from tests.trainer.conftest import STAND_IN, filled, order, serving, watched


async def test_the_local_supervisor_executes_a_manifest_of_a_cluster(
    config: TrainerConfig, store: ObjectStore, photo: bytes
) -> None:
    async with serving(config) as client:
        await filled(client, photo)
        owner = client.trainer.training._backend.owner
        recipe = Recipe("sd15-tiny", StageSettings(0, 1e-6), StageSettings(5, 1e-3), sample_prompts=("steps 3",))
        spec: RunSpec = replace(SPEC, recipe=recipe, owner=owner)
        execution = replace(read_execution(EVERYTHING, "e.yaml"), command=(sys.executable, str(STAND_IN)))
        job = render(spec, execution)
        assert "DARKROOM_S3_SECRET_KEY_FILE" in str(job)
        client.trainer.training.runs.create(spec, job)
        client.trainer.training._backend.submit(spec)
        done = (await watched(client, spec.name))[-1].run
    assert (done.state, done.exit_code, done.error) == (pb.RUN_STATE_SUCCEEDED, 0, "")
    assert store.get(f"{spec.name}/job.json") == encode(job)


async def test_a_service_whose_credentials_lie_in_files_passes_them_on(
    config: TrainerConfig, photo: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("ACCESS_KEY", config.store.access_key), ("SECRET_KEY", config.store.secret_key)):
        (tmp_path / name).write_text(f"{value}\n")
        monkeypatch.setenv(f"DARKROOM_S3_{name}_FILE", str(tmp_path / name))
        monkeypatch.delenv(f"DARKROOM_S3_{name}", raising=False)
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "steps 2"))
        done = (await watched(client, run.name))[-1].run
    assert (done.state, done.error) == (pb.RUN_STATE_SUCCEEDED, "")
