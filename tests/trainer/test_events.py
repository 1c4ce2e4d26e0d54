"""Records of a run: reading them, and one curve from several attempts."""

import json
from datetime import UTC, datetime

from trainer import events
from trainer.events import MessageRecord, ProgressRecord, Record, ResumePointRecord, SampleRecord, Shown

TIME = datetime(2026, 11, 23, tzinfo=UTC)


def step(stage: str, number: int, loss: float = 0.5) -> ProgressRecord:
    return ProgressRecord(stage, number, 10, loss, loss, 1e-6, 1.0, 1.0, TIME)


def point(number: int, attempt: int = 1) -> ResumePointRecord:
    return ResumePointRecord("unet", number, f"{attempt}-1-{number:07d}/", 4, 0.25, TIME)


def test_every_kind_is_read() -> None:
    common = {"time": "2026-11-23T00:00:00Z"}
    numbers = {"loss": 0.25, "smoothed_loss": 0.5, "learning_rate": 1e-6, "images_per_second": 2, "eta_seconds": 3}
    lines = [
        {"kind": "progress", "stage": "unet", "step": 7, "num_steps": 9, **numbers, **common},
        {"kind": "sample", "stage": "unet", "step": 7, "prompt": "a robot", "object": "x.png", **common},
        {"kind": "message", "text": "hello", "level": "warning", **common},
        {
            "kind": "resume_point",
            "stage": "unet",
            "step": 7,
            "object": "3-1-0000007/",
            "size_bytes": 4,
            "stall_seconds": 0.25,
            **common,
        },
        {"kind": "finished", "checkpoint": "c", **common},
        {"kind": "of a newer program", **common},
    ]
    found = events.parse("\n".join(map(json.dumps, lines)).encode(), "key")
    assert found[:4] == [
        ProgressRecord("unet", 7, 9, 0.25, 0.5, 1e-6, 2.0, 3.0, TIME),
        SampleRecord("unet", 7, "a robot", "x.png", TIME),
        MessageRecord("hello", "warning", TIME),
        point(7, attempt=3),
    ]
    assert len(found) == 5


def test_numbers_that_only_newer_programs_write() -> None:
    numbers = {"loss": 1, "smoothed_loss": 1, "learning_rate": 2e-6, "images_per_second": 1, "eta_seconds": 1}
    newer = {
        "text_encoder_learning_rate": 1e-6,
        "step_seconds": 0.5,
        "data_wait_seconds": 0.25,
        "model_flops_utilization": 0.4,
    }
    line = {"kind": "progress", "stage": "unet", "step": 1, "num_steps": 9, **numbers, "time": "2026-11-23T00:00:00Z"}
    old, new = events.parse(f"{json.dumps(line)}\n{json.dumps({**line, **newer})}".encode(), "key")
    assert isinstance(old, ProgressRecord)
    assert isinstance(new, ProgressRecord)
    for name, value in newer.items():
        assert (getattr(old, name), getattr(new, name)) == (0, value)


def test_a_damaged_line_is_reported_and_costs_only_itself() -> None:
    good = json.dumps({"kind": "message", "text": "on", "time": "2026-11-23T00:00:00Z"})
    bad, after = events.parse(f'{{"kind": "prog\n\n{good}'.encode(), "the-key")
    assert isinstance(bad, MessageRecord)
    assert bad.level == "warning"
    assert "line 1 of the-key" in bad.text
    assert after == MessageRecord("on", "info", TIME)


def test_file_names() -> None:
    assert events.order_of("02-00000017.jsonl") == (2, 17)
    assert events.order_of("123-00000017.jsonl") == (123, 17) > events.order_of("99-00000018.jsonl")
    assert events.order_of("notes.txt") == ()


def test_the_newest_attempt_wins_from_its_first_step() -> None:
    first: list[tuple[int, Record]] = [(1, step("text_encoder", 1)), (1, step("unet", 1)), (1, step("unet", 2))]
    second: list[tuple[int, Record]] = [(2, step("unet", 2, 0.1)), (2, step("unet", 3, 0.1))]
    curve = events.merged([*first, *second])
    assert curve == [step("text_encoder", 1), step("unet", 1), step("unet", 2, 0.1), step("unet", 3, 0.1)]


def test_messages_of_superseded_attempts_stay() -> None:
    message = MessageRecord("store is away", "error", TIME)
    assert events.merged([(1, step("unet", 1)), (1, message), (2, step("unet", 1))]) == [message, step("unet", 1)]


def test_a_watcher_sees_no_step_twice() -> None:
    shown = Shown()
    assert shown.news([(1, step("unet", number)) for number in (1, 2, 3)]) == [step("unet", n) for n in (1, 2, 3)]
    assert shown.news([(2, step("unet", number)) for number in (1, 2, 3, 4)]) == [step("unet", 4)]
    sample = SampleRecord("unet", 4, "a robot", "unet-4-0.png", TIME)
    assert shown.news([(2, sample), (3, sample)]) == [sample]


def test_resume_points_stay_and_are_shown_once() -> None:
    first: list[tuple[int, Record]] = [(1, step("unet", 1)), (1, step("unet", 2)), (1, point(2))]
    second: list[tuple[int, Record]] = [(2, step("unet", 2)), (2, point(2, attempt=2))]
    assert events.merged([*first, *second]) == [step("unet", 1), point(2), step("unet", 2), point(2, attempt=2)]
    shown = Shown()
    assert shown.news([*first, (1, point(2))]) == [step("unet", 1), step("unet", 2), point(2)]
    assert shown.news(second) == [point(2, attempt=2)]
