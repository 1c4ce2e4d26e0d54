"""Several processes train as one does, survive what one survives, and end together."""

import itertools
import json
import os
import secrets
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore, StoreConfig
from dreambooth import exits, workers, world
from dreambooth.base_model import TEXT_ENCODER_WEIGHTS
from dreambooth.draws import Draws
from dreambooth.optimizer import Optimizer
from dreambooth.recipe import parse
from safetensors.torch import load_file, save_file

from tests.dreambooth.conftest import encoded, picture, read_records
from tests.dreambooth.group import SLOW, Became, Group, end_of, is_gone, wait_until, workers_of

BOTH = {
    "text_encoder": {"steps": 2, "learning_rate": 1e-4},
    "unet": {"steps": 3, "learning_rate": 1e-3},
}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "freeze": {
        **BOTH,
        "stages": "joint_then_freeze",
        "ema_decay": 0.9,
        "min_snr_gamma": 5.0,
        "gradient_accumulation_steps": 2,
    },
    "prior": {
        "text_encoder": {"steps": 0},
        "unet": {"steps": 3, "learning_rate": 1e-3},
        "prior_preservation": {"class_prompt": "a toy", "num_class_images": 3},
        "lora": {"rank": 4, "alpha": 2},
        "crop": "random",
        "flip": True,
        "caption_dropout": 0.3,
        "precision": "bf16",
    },
}
LONG = {
    "text_encoder": {"steps": 3, "learning_rate": 1e-4},
    "unet": {"steps": 20, "learning_rate": 1e-3},
    "ema_decay": 0.9,
    "resume_point_every_steps": 1,
}
SLOWLY = {SLOW: "0.3"}


@pytest.fixture(scope="module")
def group(store_config: StoreConfig, micro: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    """A session with three images in a bucket that the tests of this file share."""
    store = ObjectStore(replace(store_config, bucket=f"test-{secrets.token_hex(6)}"))
    store.ensure_bucket()
    sessions = Sessions(store)
    sessions.create("toy")
    for number, size in enumerate(((64, 64), (96, 64), (64, 80))):
        sessions.put_image("toy", f"sks_toy ({number}).png", encoded(picture(number, size)), *size)
    yield Group(store, micro, tmp_path_factory.mktemp("group"))
    store.delete_bucket()


@pytest.fixture(scope="module")
def undisturbed(group: Group) -> Became:
    """What two processes make of LONG."""
    return group.carry_out("undisturbed", LONG)


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_become_what_one_becomes_with_twice_the_accumulation(name: str, group: Group) -> None:
    recipe = RECIPES[name]
    accumulation = recipe.get("gradient_accumulation_steps", 1)
    two = group.carry_out(f"{name}-2", recipe)
    # What two processes have drawn together, one draws for itself.
    group.store.delete_prefix("sessions/toy/class_images/")
    one = group.carry_out(f"{name}-1", {**recipe, "gradient_accumulation_steps": 2 * accumulation}, processes=1)
    assert two.losses == pytest.approx(one.losses, rel=1e-6)
    assert two.weights.keys() == one.weights.keys()
    for key, weight in one.weights.items():
        torch.testing.assert_close(two.weights[key], weight, rtol=1e-5, atol=1e-6)
    if accumulation == 1:  # then the same numbers are added in the same order
        assert two.losses == one.losses
        assert all(torch.equal(two.weights[key], weight) for key, weight in one.weights.items())


def overflow_in_the_second(rank: int, folder: Path) -> None:
    """Two updates in fp16; the first gradient of process 1 is infinite."""
    ranks = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2"}
    os.environ.update({**ranks, workers.LAUNCHER: str(os.getppid()), workers.FOLDER: str(folder)})
    place = workers.here()
    assert place is not None
    together = world.join(place)
    recipe = {"base_model": "x", "base_model_source": "x", "checkpoint": "x", "precision": "fp16"}
    weights = torch.nn.Parameter(torch.ones(3))
    optimizer = Optimizer(parse(json.dumps(recipe)), {"unet": [weights]}, together.device)
    applied = []
    for factor in (1.0 if rank == 0 else float("inf"), 1.0 + rank):
        optimizer.backward((factor * weights).sum())
        together.average(optimizer.gradients())
        applied.append(optimizer.update({"unet": 0.1}))
    found = {"applied": applied, "weights": weights.tolist(), "ranks": together.gather(torch.tensor([rank])).tolist()}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    together.leave()


def test_processes_agree_on_steps_that_fp16_has_to_repeat(group: Group, tmp_path: Path) -> None:
    processes = [group.fork(overflow_in_the_second, rank, tmp_path) for rank in range(2)]
    assert [end_of(process) for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second
    assert first["applied"] == [False, True]
    assert first["ranks"] == [0, 1]


@pytest.mark.long
def test_killed_and_stopped_in_every_way_they_go_on_bit_for_bit(group: Group, undisturbed: Became) -> None:
    run = "disturbed"
    process = group.start(run, LONG, **SLOWLY)
    group.wait_for(run, "resume_point", 2, process)
    workers = workers_of(process)
    assert len(workers) == 2
    process.kill()  # the launcher alone
    wait_until(lambda: all(is_gone(worker) for worker in workers))

    process = group.start(run, LONG, **SLOWLY)
    group.wait_for(run, "resume_point", 3, process)
    workers = workers_of(process)
    os.kill(workers[1], signal.SIGKILL)
    assert end_of(process) == 137
    assert is_gone(workers[0])
    assert "another process of this run has ended" in group.messages(run)

    process = group.start(run, {**LONG, "resume_point_every_steps": 0}, **SLOWLY)
    group.wait_for(run, "progress", 2, process)
    process.terminate()
    assert end_of(process) == 143
    assert group.messages(run).endswith("stopped by SIGTERM")

    assert end_of(group.start(run, LONG, processes=1)) == 69
    assert "since then: processes was 2, is 1" in group.messages(run)

    last = [line for line in read_records(group.store, group.name(run)) if line["kind"] == "progress"][-1]
    found = group.carry_out(run, LONG)
    assert f"going on from the resume point at step {last['step']} of stage {last['stage']}" in found.messages
    assert found.losses == undisturbed.losses
    assert found.digests == undisturbed.digests


@pytest.mark.long
def test_two_machines_are_as_good_as_one(group: Group, undisturbed: Became) -> None:
    run = "machines"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def start(node: int, **variables: str) -> BaseProcess:
        together = {"DARKROOM_NODES": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **variables}
        return group.start(run, LONG, processes=1, JOB_COMPLETION_INDEX=str(node), **together)

    second, first = start(1, **SLOWLY), start(0, **SLOWLY)
    group.wait_for(run, "resume_point", 2, first, second)
    os.kill(workers_of(second)[0], signal.SIGKILL)
    assert (end_of(first), end_of(second)) == (76, 137)

    second, first = start(1, **SLOWLY), start(0, **SLOWLY)
    group.wait_for(run, "progress", 2, first, second)
    first.terminate()  # as the eviction of one pod: the other one was not asked
    assert (end_of(first), end_of(second)) == (143, 76)

    second, first = start(1, **SLOWLY), start(0, **SLOWLY)
    group.wait_for(run, "progress", 2, first, second)
    second.terminate()
    assert (end_of(first), end_of(second)) == (76, 143)
    assert group.messages(run).endswith("another process of this run was stopped by SIGTERM: this one ends, too")

    second, first = start(1), start(0)
    assert (end_of(first), end_of(second)) == (0, 0), group.log(run).read_text()
    found = group.became(run)
    assert found.losses == undisturbed.losses
    assert found.digests == undisturbed.digests
    assert "going on from the resume point" in found.messages
    assert end_of(start(1)) == 0  # its machine was lost just after the end


def arrive(rank: int, folder: Path, port: int) -> None:
    """Come to a meeting of three machines; the exit code is the program's."""
    place = workers.Place(rank, 3, 0, 1, folder, ("127.0.0.1", port))
    try:
        world.join(place, limit_seconds=3.0)
    except Exception as error:  # noqa: BLE001 - as in the program
        (folder / f"{rank}.txt").write_text(str(error))
        os._exit(exits.code(error))


def test_machines_that_never_come_are_a_failure_that_counts_once(group: Group, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first, second = (group.fork(arrive, rank, tmp_path, port) for rank in range(2))
    assert (end_of(first), end_of(second)) == (75, 76)
    assert "after 3 s 1 of 3 processes have not come, those of machines 2" in (tmp_path / "0.txt").read_text()


def test_a_loss_that_is_not_finite_names_the_image_of_whichever_process(
    group: Group, micro: Path, tmp_path: Path
) -> None:
    broken = Path(shutil.copytree(micro, tmp_path / "broken"))
    weights = load_file(broken / TEXT_ENCODER_WEIGHTS)
    z_at_the_end = ord("z") - 33 + 94
    weights["text_model.embeddings.token_embedding.weight"][z_at_the_end] = torch.nan
    save_file(weights, broken / TEXT_ENCODER_WEIGHTS, metadata={"format": "pt"})
    sessions = Sessions(group.store)
    sessions.create("odd")
    for number, name in enumerate("az"):
        sessions.put_image("odd", f"{name}.png", encoded(picture(number)), 64, 64)
    odd = Group(group.store, broken, tmp_path, "odd")
    second_sees_z = next(seed for seed in itertools.count() if Draws(seed, "unet").permutation(0, 2) == [0, 1])
    recipe = {"text_encoder": {"steps": 0}, "unet": {"steps": 3, "learning_rate": 1e-3}, "seed": second_sees_z}
    assert end_of(odd.start("first", recipe)) == 65
    assert "the loss of unet step 1 is nan, with z.png; try" in odd.messages("first")


def test_the_reference_draws_for_one_process(group: Group) -> None:
    assert end_of(group.start("reference", {**BOTH, "text_encoder": {"steps": 0}, "reference_order": True})) == 64
    assert "reference_order draws for one process, and this run has 2" in group.messages("reference")
