"""docs/training.md names every option of `darkroom train`, the presets as they are, and the exit codes are those of the program."""

import re
from pathlib import Path
from typing import Any

import typer
from darkroom_cli.__main__ import app
from dreambooth import exits
from jobs.presets import PRESETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "training.md").read_text()


def test_every_option_is_in_the_table() -> None:
    train: Any = typer.main.get_command(app)
    train = train.commands["train"]
    known = {option for param in train.params for option in param.opts if option.startswith("--")}
    cells = " ".join(row.split("|")[2] for row in re.findall(r"^\|.*\|$", PAGE, re.MULTILINE))
    assert set(re.findall(r"--[a-z][a-z-]+", cells)) == known - {"--detach", "--json"}


def test_presets_are_told_as_they_are() -> None:
    rows = {
        row[0]: row[1:] for row in re.findall(r"^\| `(\w+)` \| (\d+) at (\S+) \| (\d+) at (\S+) \|", PAGE, re.MULTILINE)
    }
    told = {name: (int(a), float(b), int(c), float(d)) for name, (a, b, c, d) in rows.items()}
    assert told == {
        name: (
            preset["text_encoder"].steps,
            preset["text_encoder"].learning_rate,
            preset["unet"].steps,
            preset["unet"].learning_rate,
        )
        for name, preset in PRESETS.items()
    }


def test_every_exit_code_is_explained() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "exit-codes.md").read_text(), re.MULTILINE)
    assert {int(code) for code in rows} == {exits.FINISHED, *exits._CODES.values()}
