import asyncio
import json
import logging
from collections.abc import Iterator

import pytest
from chassis import logs


@pytest.fixture(autouse=True)
def _root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_record_is_one_json_object_with_its_extra_fields(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    logging.getLogger("a.b").info("%s loaded\nin %d s", "model", 3, extra={"num_bytes": 7, "path": None})
    (entry,) = logged(capsys)
    assert entry.pop("time")
    assert entry == {
        "level": "INFO",
        "logger": "a.b",
        "message": "model loaded\nin 3 s",
        "num_bytes": 7,
        "path": None,
    }


def test_a_traceback_is_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        logging.getLogger().exception("failed")
    (entry,) = logged(capsys)
    assert "RuntimeError: boom" in str(entry["exception"])


async def test_the_request_id_follows_into_threads(capsys: pytest.CaptureFixture[str]) -> None:
    async def serve(identifier: str) -> None:
        logs.request_id.set(identifier)
        await asyncio.to_thread(logging.getLogger().info, "in a thread of %s", identifier)

    logs.configure()
    await asyncio.gather(serve("one"), serve("two"))
    assert {entry["request_id"]: entry["message"] for entry in logged(capsys)} == {
        "one": "in a thread of one",
        "two": "in a thread of two",
    }


def test_text_is_for_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "text")
    logging.getLogger("a").warning("careful", extra={"seconds": 2})
    line = capsys.readouterr().err
    assert line.endswith("WARNING a: careful seconds=2\n")


def test_the_level_is_the_least_that_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("warning")
    logging.getLogger("a").info("hidden")
    assert logged(capsys) == []


def test_a_second_call_replaces_the_first_and_no_other_handler(capsys: pytest.CaptureFixture[str]) -> None:
    foreign = logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    logs.configure()
    logs.configure()
    logging.getLogger("a").info("once")
    assert len(logged(capsys)) == 1
    assert foreign in logging.getLogger().handlers


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="loud"):
        logs.configure("loud")
