"""The run's records: JSON lines in the bucket, written by a thread so that training never waits for the store.

    <run>/events/<attempt>-<number>.jsonl    a second's worth of lines; attempt 2 digits or more, number 8, both from 1
    <run>/samples/..., <run>/tensorboard/...

An attempt is one start of the program; its number is one more than the highest found. While the store is away lines are
kept and tried again every second; they reach the bucket in order, none twice, none left out. An object that a line
speaks of is written before the line.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from artifacts.errors import StoreUnavailable
from artifacts.store import ObjectStore

from dreambooth import history
from dreambooth.curves import Curves
from dreambooth.progress import now
from dreambooth.resume_point import Position

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 1.0
_CURVES_SECONDS = 15.0
_FLUSH_PATIENCE_SECONDS = 30.0


class Records:
    """The records of this attempt. Raises StoreUnavailable if the store cannot be asked for earlier attempts."""

    def __init__(self, store: ObjectStore, run_folder: str, tensorboard: Curves | None = None) -> None:
        self._store = store
        self._run_folder = run_folder
        self._events = f"{run_folder}events/"
        self.attempt = max((attempt for attempt, _ in history.files(store, self._events)), default=0) + 1
        self._tensorboard = tensorboard
        self._curves_written = time.monotonic()
        self._number = 0
        self._num_added = self._num_taken = self._num_written = 0
        self._lines: list[Mapping[str, Any]] = []
        self._objects: list[tuple[str, bytes, str]] = []
        self._piece: list[tuple[str, bytes, str]] = []
        self._lock = threading.Condition()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="records", daemon=True)
        self._thread.start()

    def add(self, record: Mapping[str, Any]) -> None:
        """Append one line. Raises what the store said if it refused an earlier one for good."""
        self._append(record)

    def message(self, text: str, level: str = "info") -> None:
        """A line for a person; it also goes to the log. level: "info", "warning" or "error"."""
        _log.log(logging.getLevelNamesMapping()[level.upper()], text)
        self.add({"kind": "message", "text": text, "level": level, "time": now()})

    def sample(self, stage: str, step: int, number: int, prompt: str, png: bytes) -> None:
        """A sample image and the line that speaks of it."""
        key = self.sample_key(stage, step, number)
        line = {"kind": "sample", "stage": stage, "step": step, "prompt": prompt, "object": key, "time": now()}
        self._append(line, (key, png, "image/png"))

    def sample_key(self, stage: str, step: int, number: int) -> str:
        """Where that sample image lies."""
        return f"{self._run_folder}samples/{stage}-{step:06d}-{number}.png"

    def begin(self, position: Position | None) -> None:
        """This attempt goes on behind `position`, or from the beginning: its curves begin with what was recorded until
        there, and those of earlier attempts are deleted. Call it before the first step; raises what the store raises."""
        if self._tensorboard is None or self.attempt == 1:
            return
        prefix = f"{self._run_folder}tensorboard/"
        old = [found.key for found in self._store.list(prefix)]
        lines = history.until(self._store, self._events, position)
        self._tensorboard.add(lines, history.pictures(self._store, lines))
        self._tensorboard.upload(self._store, prefix)
        self._store.delete_many(old)

    def flush(self) -> None:
        """Wait until everything added before is in the store. Raises StoreUnavailable if that takes too long."""
        with self._lock:
            wanted = self._num_added
            arrived = self._lock.wait_for(
                lambda: self._num_written >= wanted or self._failure is not None, _FLUSH_PATIENCE_SECONDS
            )
        if self._failure:
            raise self._failure
        if not arrived:
            where = self._store.config.url
            raise StoreUnavailable(self._events, where, f"records wait for {_FLUSH_PATIENCE_SECONDS:g} s already")

    def finished(self, checkpoint: str) -> None:
        """The last line of a run that reached its end."""
        self.add({"kind": "finished", "checkpoint": checkpoint, "time": now()})

    def close(self, patience_seconds: float) -> None:
        """Write everything and end the thread. Raises StoreUnavailable if that takes longer than the patience."""
        self._closing.set()
        self._thread.join(patience_seconds)
        if self._failure:
            raise self._failure
        if self._thread.is_alive():
            where = self._store.config.url
            raise StoreUnavailable(self._events, where, f"the last records were not taken in {patience_seconds:g} s")

    def _append(self, line: Mapping[str, Any], *objects: tuple[str, bytes, str]) -> None:
        if self._failure:
            raise self._failure
        with self._lock:
            self._lines.append(line)
            self._num_added += 1
            self._objects.extend(objects)

    def _work(self) -> None:
        while True:
            last = self._closing.wait(_FLUSH_SECONDS)
            try:
                self._write()
                self._write_curves(last)
                if last:
                    return
            except StoreUnavailable as error:
                _log.warning("records wait for the store: %s", error)
                time.sleep(_FLUSH_SECONDS if last else 0)
            except Exception as error:  # noqa: BLE001 - raised in the thread that trains, by `add` or `close`
                with self._lock:
                    self._failure = error
                    self._lock.notify_all()
                return

    def _write(self) -> None:
        """Write what has gathered. A piece that the store did not take is kept as it is: a reader may have seen it."""
        while self._piece or self._take():
            for key, content, content_type in self._piece:
                self._store.put(key, content, content_type)
            self._piece = []
            with self._lock:
                self._num_written += self._num_taken
                self._num_taken = 0
                self._lock.notify_all()

    def _take(self) -> bool:
        """Make the next piece of what was added since; whether there is any."""
        with self._lock:
            lines, self._lines = self._lines, []
            self._piece, self._objects = self._objects, []
            self._num_taken = len(lines)
        if self._tensorboard is not None:
            self._tensorboard.add(lines, {key: content for key, content, _ in self._piece})
        if lines:
            self._number += 1
            key = f"{self._events}{self.attempt:02d}-{self._number:08d}.jsonl"
            body = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
            self._piece.append((key, body.encode(), "application/jsonl"))
        return bool(self._piece)

    def _write_curves(self, last: bool) -> None:
        due = last or time.monotonic() - self._curves_written > _CURVES_SECONDS
        if self._tensorboard is not None and due:
            self._tensorboard.upload(self._store, f"{self._run_folder}tensorboard/")
            self._curves_written = time.monotonic()
