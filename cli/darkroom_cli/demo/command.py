"""`darkroom demo`: starts the system, drives the line, shows the contact sheet, prints one JSON line."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import typer

from darkroom_cli import connection
from darkroom_cli.clients import connect
from darkroom_cli.commands.convert import Format
from darkroom_cli.connection import Connection, NotRunning, endpoints
from darkroom_cli.demo import contact_sheet, line
from darkroom_cli.demo.line import Line
from darkroom_cli.demo.subject import Subject
from darkroom_cli.launcher import signals
from darkroom_cli.launcher.command import StartFailures, start_with_progress, stop_aloud
from darkroom_cli.launcher.system import System
from darkroom_cli.output import UsageProblem, console, print_json, readable_errors

STEPS: tuple[tuple[str, Callable[[Line], None]], ...] = (
    ("upload", line.upload),
    ("caption", line.caption),
    ("crop", line.crop),
    ("before", line.draw_before),
    ("train", line.train),
    ("convert", line.convert),
    ("after", line.draw_after),
)


class SubjectName(StrEnum):
    """The drawn subjects."""

    PIP = "pip"
    ZIG = "zig"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the contact sheet.")] = Path("out"),
    subject_name: Annotated[SubjectName, typer.Option("--subject", help="Whose photos.")] = SubjectName.PIP,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train adapters instead of weights; nothing is converted then.")
    ] = False,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ADDRESS",
            help="Where a Darkroom runs that is not this machine's, such as one behind `kubectl port-forward`: captioner, trainer, "
            "converter, webui (host:port) and http (a URL), once for each. The token is DARKROOM_TOKEN.",
        ),
    ] = None,
) -> None:
    """Photos to pictures in one go: five photos -> captions -> crops -> two-stage training -> conversion -> new pictures.

    Uses the Darkroom that runs on DARKROOM_DATA, or starts one for itself. Ends with OUT/contact-sheet.png and one JSON
    line on stdout.
    """
    begin = time.monotonic()
    with readable_errors(), signals.interrupting():
        subject = Subject(subject_name)
        sheet = out / "contact-sheet.png"
        sheet.parent.mkdir(parents=True, exist_ok=True)
        with _running(endpoints(endpoint or [])) as where, connect(where) as clients:
            seconds = {"start": time.monotonic() - begin}
            work = Line(clients, where, subject.photos(), is_lora=lora)
            for name, step in (step for step in STEPS if not (lora and step[0] == "convert")):
                seconds[name] = _timed(name, step, work)
            report = _report(work, subject, seconds | {"total": time.monotonic() - begin})
            _save_sheet(sheet, work, subject)
        console.print(f"contact sheet: {sheet}", markup=False, soft_wrap=True)
        print_json(report)


@contextlib.contextmanager
def _running(given: Mapping[str, str]) -> Iterator[Connection]:
    """The connection of the system that runs, or of one that runs as long as the block. given: endpoints of one elsewhere."""
    try:
        where = connection.load(given)
    except NotRunning:
        if given:
            raise
        system = System(connection.data_folder())
    else:
        yield where
        return
    try:
        try:
            where = start_with_progress(system)
        except StartFailures as error:
            raise UsageProblem(str(error)) from error
        yield where
    finally:
        stop_aloud(system)


def _timed(name: str, step: Callable[[Line], None], work: Line) -> float:
    begin = time.monotonic()
    step(work)
    seconds = time.monotonic() - begin
    console.print(f"{name:<8} {seconds:6.1f} s", highlight=False)
    return seconds


def _report(work: Line, subject: Subject, seconds: dict[str, float]) -> dict[str, Any]:
    named = [photo.background in work.captions.get(photo.filename, "") for photo in work.photos]
    return {
        "subject": subject.name,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "captions": work.captions,
        "caption_accuracy": round(mean(named), 3),
        "loss_first": round(mean(work.losses[:20]), 4),
        "loss_last": round(mean(work.losses[-20:]), 4),
        "subject_fidelity_before": round(mean(subject.fidelity(picture) for picture in work.before), 3),
        "subject_fidelity_after": round(mean(subject.fidelity(picture) for picture in work.after), 3),
        **(_converted(work) if work.conversions else {"checkpoints": {"lora": work.run.checkpoint}}),
        "session": work.session,
    }


def _converted(work: Line) -> dict[str, Any]:
    digests = {conversion.tensors_sha256 for conversion in work.conversions.values()}
    return {
        "conversion_digests_equal": len(digests) == 1 and "" not in digests,
        "tensors_sha256": work.conversions[Format.SAFETENSORS].tensors_sha256,
        "checkpoints": {
            "diffusers": work.run.checkpoint,
            **{to.value: conversion.checkpoint for to, conversion in work.conversions.items()},
        },
    }


def _save_sheet(path: Path, work: Line, subject: Subject) -> None:
    def scored(pictures: list[bytes]) -> list[str]:
        return [
            f"{prompt}  ({subject.fidelity(picture):.2f})"
            for prompt, picture in zip(work.prompts, pictures, strict=True)
        ]

    rows = [
        contact_sheet.Row(
            "Photos, with the captions written for them",
            [photo.data for photo in work.photos],
            [work.captions.get(photo.filename, "") for photo in work.photos],
        ),
        contact_sheet.Row("Before training", work.before, scored(work.before)),
        contact_sheet.Row("After training", work.after, scored(work.after)),
    ]
    contact_sheet.save(path, "Darkroom: five photos in, new pictures out", rows)
