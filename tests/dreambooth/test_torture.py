"""The short form of `torture`: two recipes that have everything, killed at named moments. `make torture` is the long one."""

from pathlib import Path

import pytest
from artifacts.store import ObjectStore

from tests.dreambooth import torture
from tests.dreambooth.torture_preload import build_base


@pytest.mark.parametrize(
    ("name", "moments"),
    [
        ("freeze", ["inside an accumulation", "uploading a resume point", "between the stages", "in the last step"]),
        ("prior", ["drawing the third class image", "writing the checkpoint"]),
    ],
    ids=["freeze", "prior"],
)
def test_killed_at_each_moment_it_becomes_what_it_would_have_been(
    name: str, moments: list[str], store: ObjectStore, tmp_path: Path
) -> None:
    bench = torture.prepared(tmp_path, build_base(tmp_path / "base"), store.config)
    wanted, _ = torture.undisturbed(bench, name)
    torture.survive_moments(bench, name, f"{name}-moments", moments)
    torture.require_equal(bench, f"{name}-moments", wanted)
