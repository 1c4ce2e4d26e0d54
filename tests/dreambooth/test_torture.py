"""The short form of `torture`: two recipes that have everything, killed once each. `make torture` is the long one."""

import random
from pathlib import Path

import pytest
from artifacts.store import ObjectStore

from tests.dreambooth import torture
from tests.dreambooth.torture_preload import build_base

KILLS = 1


@pytest.mark.parametrize("name", ["freeze", "prior"])
def test_killed_at_random_moments_it_becomes_what_it_would_have_been(
    name: str, store: ObjectStore, tmp_path: Path
) -> None:
    bench = torture.prepared(tmp_path, build_base(tmp_path / "base"), store.config)
    wanted, seconds = torture.undisturbed(bench, name)
    chance, killed, runs = random.Random(name), 0, 0
    while killed < KILLS:
        runs += 1
        run = f"{name}-{runs}"
        killed += torture.survive(bench, name, run, chance, seconds, KILLS - killed)
        torture.require_equal(bench, run, wanted)
        assert runs < 10, "the moments of the kills lie behind the ends of the runs"
