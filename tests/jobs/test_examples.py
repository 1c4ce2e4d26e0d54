"""The Jobs in examples/jobs are what examples/runs give; every cluster from 1.33 on takes them."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from chassis.config import read
from darkroom_cli.__main__ import app
from dreambooth import recipe
from dreambooth.config import ProgramConfig
from jobs.errors import FileInvalid
from jobs.manifest import environment_of
from jobs.render import STORE_FOLDER
from jobs.run_file import read_run
from typer.testing import CliRunner

from tests.jobs.job_rules import problems
from tests.jobs.test_job_rules import VERSIONS

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = sorted((EXAMPLES / "runs").glob("*.yaml"))


def test_each_run_has_its_job_and_no_job_is_without_a_run() -> None:
    assert len(RUNS) == 5
    assert [path.name for path in sorted((EXAMPLES / "jobs").iterdir())] == [path.name for path in RUNS]


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.stem)
def test_the_job_is_rendered_from_the_run(run: Path) -> None:
    done = CliRunner().invoke(app, ["render", str(run)])
    job = EXAMPLES / "jobs" / run.name
    command = f"darkroom render examples/runs/{run.name} > examples/jobs/{run.name}"
    assert job.read_text() == done.stdout, f"run: {command}"


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.stem)
def test_it_says_at_the_top_what_it_does_and_needs(run: Path) -> None:
    lines = (EXAMPLES / "jobs" / run.name).read_text().splitlines()
    comment = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    spec, execution = read_run(run.read_text(), run.name)
    assert "What happens:" in comment
    assert f'session "{spec.session}"' in comment
    assert f"models/{spec.recipe.base_model}" in comment
    assert execution.store_secret is not None
    assert f'Secret "{execution.store_secret.name}"' in comment


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.stem)
@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_takes_it(run: Path, version: str) -> None:
    objects = list(yaml.safe_load_all((EXAMPLES / "jobs" / run.name).read_text()))
    for each in objects:
        assert kubernetes_validate.validate(each, version, strict=True) == version
    assert problems(objects) == []


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.stem)
def test_it_names_the_cuda_build_where_it_asks_for_a_gpu(run: Path) -> None:
    _, execution = read_run(run.read_text(), run.name)
    assert execution.image.endswith("-cuda") == execution.gpu.enabled


def test_a_slice_too_small_is_refused_as_its_comment_says() -> None:
    text = (EXAMPLES / "runs" / "mig.yaml").read_text().replace("minMemoryMiB: 8000", "minMemoryMiB: 12000")
    with pytest.raises(FileInvalid, match=r"has at most 10240; use a larger slice"):
        read_run(text, "mig.yaml")


@pytest.mark.parametrize("run", RUNS, ids=lambda path: path.stem)
def test_the_program_takes_what_the_job_gives_it(run: Path, tmp_path: Path) -> None:
    *_, job = yaml.safe_load_all((EXAMPLES / "jobs" / run.name).read_text())
    environment = environment_of(job)
    for name in ("access-key", "secret-key"):
        (tmp_path / name).write_text(f"the {name}\n")
    mounted = {name: value.replace(STORE_FOLDER, str(tmp_path)) for name, value in environment.items()}
    config = read(ProgramConfig, {**mounted, "JOB_COMPLETION_INDEX": "0"})
    spec, execution = read_run(run.read_text(), run.name)
    assert (config.store.access_key, config.store.secret_key) == ("the access-key", "the secret-key")
    assert (config.run, config.num_workers) == (spec.name, execution.num_processes)
    assert config.save_seconds < job["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    order = recipe.parse(config.recipe)
    assert (order.checkpoint, order.base_model_source) == (spec.checkpoint, spec.base_model_source)
