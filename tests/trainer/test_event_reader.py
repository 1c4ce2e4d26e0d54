"""Finding the records of a run in a real store, also of a run that was started more than 99 times."""

import json

from artifacts.store import ObjectStore
from trainer import event_reader
from trainer.event_reader import EventReader
from trainer.events import MessageRecord

RUN = "sessions/toy/runs/first"
TIME = "2026-11-23T00:00:00Z"


def write(store: ObjectStore, attempt: int, number: int, level: str = "info") -> None:
    """One message, which says who wrote it."""
    line = {"kind": "message", "text": f"{attempt}/{number}", "level": level, "time": TIME}
    store.put(f"{RUN}/events/{attempt:02d}-{number:08d}.jsonl", json.dumps(line).encode())


def new(reader: EventReader) -> list[str]:
    """What the reader has not told yet; every record came from the attempt it is given out for."""
    found = reader.read_new()
    texts = [record.text for _, record in found if isinstance(record, MessageRecord)]
    assert [int(text.split("/")[0]) for text in texts] == [attempt for attempt, _ in found]
    return texts


def test_a_late_watcher_gets_attempts_by_number_and_not_by_text(store: ObjectStore) -> None:
    for attempt in (9, 99, 100, 101):
        for number in (1, 2):
            write(store, attempt, number)
    reader = EventReader(store, RUN)
    assert new(reader) == ["9/1", "9/2", "99/1", "99/2", "100/1", "100/2", "101/1", "101/2"]
    assert new(reader) == []


def test_a_watcher_that_is_there_already_sees_every_attempt_follow(store: ObjectStore) -> None:
    reader = EventReader(store, RUN)
    assert new(reader) == []
    write(store, 99, 1)
    assert new(reader) == ["99/1"]
    write(store, 99, 2)
    assert new(reader) == ["99/2"]
    write(store, 99, 3)
    write(store, 100, 1)
    assert new(reader) == ["99/3", "100/1"]
    write(store, 100, 2)
    write(store, 101, 1)
    write(store, 102, 1)
    assert new(reader) == ["100/2", "101/1", "102/1"]
    assert new(reader) == []


def test_what_the_99th_attempt_wrote_before_the_100th_began_is_not_missed(store: ObjectStore) -> None:
    write(store, 99, 1)
    reader = EventReader(store, RUN)
    new(reader)
    real = store.list

    def late(prefix: str, start_after: str = "") -> object:
        listed = list(real(prefix, start_after))
        if not store.exists(f"{RUN}/events/100-00000001.jsonl"):  # written right behind the first look
            write(store, 99, 2)
            write(store, 100, 1)
        return listed

    store.list = late  # type: ignore[method-assign, assignment]
    assert new(reader) + new(reader) == ["99/2", "100/1"]


def test_the_newest_is_that_of_the_highest_attempt(store: ObjectStore) -> None:
    for attempt in (99, 100):
        write(store, attempt, 1, "error")
    assert event_reader.num_attempts(store, RUN) == 100
    assert event_reader.newest_error(store, RUN, after_attempt=0) == "100/1"
    assert event_reader.newest_error(store, RUN, after_attempt=99) == "100/1"
    assert event_reader.newest_error(store, RUN, after_attempt=100) == ""
    for number in range(2, 10):
        write(store, 101, number)
    assert event_reader.newest_error(store, RUN, after_attempt=0) == ""  # looked for in the newest 8 objects
