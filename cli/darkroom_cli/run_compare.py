"""Two runs side by side as `darkroom runs compare` prints them."""

from typing import Any

from darkroom.trainer.v1 import training_pb2 as pb

from darkroom_cli.curves import Difference, StageCurve, compare
from darkroom_cli.output import print_table
from darkroom_cli.run_show import Found, print_picture, stage_as_json
from darkroom_cli.run_words import clock, different_settings, duration, stage_of, state_of


def print_runs(a: Found, b: Found) -> None:
    """Everything for a person, on stdout."""
    print_table(("", a.name, b.name), [*_run_rows(a, b), *_stage_rows(a, b)], as_json=False)
    print()
    print(verdict(a, b))
    print_picture([a, b])


def verdict(a: Found, b: Found) -> str:
    """Whether the losses are equal bit for bit, and where they part."""
    equal, difference = compare(a.curve, b.curve)
    if difference is None:
        return f"losses: bit-equal over {equal} steps" if equal else "losses: none yet, in neither run"
    place = f"{stage_of(difference.stage)} step {difference.step}"
    left, right = difference.losses
    if left is None or right is None:
        longer = a.name if right is None else b.name
        return f"losses: bit-equal over {equal} steps; {longer} alone goes on at {place}"
    before = f"; bit-equal over the {equal} steps before" if equal else ""
    return f"losses: first differ at {place}: {left!r} and {right!r}{before}"


def as_json(a: Found, b: Found) -> dict[str, Any]:
    """The same for a program."""
    equal, difference = compare(a.curve, b.curve)
    return {
        "runs": [each.run.name for each in (a, b)],
        "states": [pb.RunState.Name(each.run.state) for each in (a, b)],
        "seconds": [time.total_seconds() if (time := duration(each.run)) else None for each in (a, b)],
        "settings": {name: list(values) for name, values in different_settings(a.run.recipe, b.run.recipe).items()},
        "stages": [[stage_as_json(stage) for stage in each.curve.stages.values()] for each in (a, b)],
        "num_equal_steps": equal,
        "first_difference": _difference(difference),
    }


def _difference(difference: Difference | None) -> dict[str, Any] | None:
    if difference is None:
        return None
    stage = pb.Stage.Name(pb.Stage.ValueType(difference.stage))
    return {"stage": stage, "step": difference.step, "losses": list(difference.losses)}


def _run_rows(a: Found, b: Found) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        ("state", state_of(a.run), state_of(b.run)),
        ("time", clock(duration(a.run)), clock(duration(b.run))),
        ("attempts", a.run.num_attempts, b.run.num_attempts),
    ]
    differing = different_settings(a.run.recipe, b.run.recipe)
    return rows + [(name, *(value or "-" for value in values)) for name, values in differing.items()]


def _stage_rows(a: Found, b: Found) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for number in {**a.curve.stages, **b.curve.stages}:
        facts = [_facts(each.curve.stages.get(number)) for each in (a, b)]
        rows += [(f"{stage_of(number)}: {name}", facts[0][name], facts[1][name]) for name in facts[0]]
    return rows


def _facts(stage: StageCurve | None) -> dict[str, str]:
    names = ("steps", "first loss", "last loss", "smoothed loss", "images/s", "time")
    if stage is None:
        return dict.fromkeys(names, "-")
    first, last = stage.points[0], stage.points[-1]
    losses = (f"{first.loss:.6f}", f"{last.loss:.6f}", f"{last.smoothed:.6f}")
    steps = f"{last.step}/{stage.num_steps}"
    values = (steps, *losses, f"{stage.images_per_second:.1f}", clock(stage.seconds))
    return dict(zip(names, values, strict=True))
