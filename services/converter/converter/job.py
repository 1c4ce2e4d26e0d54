"""One conversion at work: its record, its counters, and whether it was told to stop.

`jobs` owns these; `transfer` reports to them as its Progress from a worker thread, and any thread may take a snapshot.
"""

import threading
from collections.abc import Callable
from dataclasses import replace

from artifacts.errors import Conflict

from converter.conversions import CANCELLED, CANCELLING, PENDING, RUNNING, Conversion, ConversionRecords, Version
from converter.errors import ConversionFinished


class Cancelled(Exception):
    """A client asked the conversion to stop."""


class Interrupted(Exception):
    """The service stops; the conversion will be taken up by the next one."""


class Job:
    """Counters are plain numbers that one thread writes; the record changes under the lock, store first."""

    def __init__(
        self,
        version: Version,
        records: ConversionRecords,
        stopping: threading.Event,
        on_change: Callable[[], None],
        on_bytes: Callable[[int], None],
    ) -> None:
        self.wake = threading.Event()  # ends a wait for the store
        self._version = version
        self._records = records
        self._stopping = stopping
        self._on_change = on_change
        self._on_bytes = on_bytes
        self._lock = threading.Lock()
        self._is_cancelled = version.conversion.state == CANCELLING
        self._is_publishing = False
        self.start_counting(0, 0)

    @property
    def conversion(self) -> Conversion:
        """The record as it was last saved."""
        return self._version.conversion

    def snapshot(self) -> Conversion:
        """The record with the counters of this moment."""
        saved = self.conversion
        if saved.is_final:
            return saved
        return replace(
            saved,
            num_tensors_done=self._num_tensors_done,
            num_tensors=self._num_tensors,
            num_bytes_done=self._num_bytes_done,
            num_bytes=self._num_bytes,
            num_tensors_proved=self._num_tensors_proved,
        )

    def begin(self) -> None:
        """Say that the work has begun. Raises Cancelled or Interrupted if it shall not."""
        with self._lock:
            self.check()
            if self.conversion.state == PENDING:
                self._save(replace(self.conversion, state=RUNNING))

    def save(self, conversion: Conversion) -> None:
        """Write the record, unless another service has finished this conversion meanwhile; then take over its result."""
        with self._lock:
            self._save(conversion)

    def cancel(self) -> Conversion:
        """Ask it to stop; at once if it has not begun. Raises ConversionFinished if it is too late."""
        with self._lock:
            if self.conversion.is_final or self._is_publishing:
                raise ConversionFinished(self.conversion.id, self.conversion.state)
            if self.conversion.state == PENDING:  # no worker has it yet, and `begin` will find it cancelled
                self._save(self.conversion.ended(CANCELLED))
            elif self.conversion.state != CANCELLING:
                self._save(replace(self.snapshot(), state=CANCELLING))
            self._is_cancelled = True
        self.wake.set()
        return self.snapshot()

    def check(self) -> None:
        """Raise Cancelled or Interrupted if the work shall stop."""
        if self._is_cancelled:
            raise Cancelled
        if self._stopping.is_set():
            raise Interrupted

    def start_counting(self, num_tensors: int, num_bytes: int) -> None:
        """Begin an attempt of this much work."""
        self._num_tensors, self._num_bytes = num_tensors, num_bytes
        self._num_tensors_done = self._num_bytes_done = self._num_tensors_proved = 0
        self._is_publishing = False
        self._on_change()

    # What follows is transfer.Progress.

    def wrote(self, num_bytes: int) -> None:
        """Values went into the upload."""
        self._num_bytes_done += num_bytes
        self._on_bytes(num_bytes)
        self._on_change()
        self.check()

    def wrote_tensor(self) -> None:
        """A tensor is complete."""
        self._num_tensors_done += 1
        self._on_change()

    def checked(self) -> None:
        """A chunk of the result was read back."""
        self.check()

    def proved_tensor(self) -> None:
        """A tensor equals what was written."""
        self._num_tensors_proved += 1
        self._on_change()

    def before_publishing(self) -> None:
        """From here on a cancel comes too late."""
        with self._lock:
            self.check()
            self._is_publishing = True

    def _save(self, conversion: Conversion) -> None:
        while True:
            try:
                self._version = self._records.replace(self._version, conversion)
            except Conflict:
                # Another service, or an earlier call of ours whose answer was lost.
                self._version = self._records.get(conversion.id)
                if self.conversion.state == CANCELLING and not conversion.is_final:
                    self._is_cancelled = True
                    conversion = replace(conversion, state=CANCELLING)
                if not self.conversion.is_final:
                    continue
            self._on_change()
            return
