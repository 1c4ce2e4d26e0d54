"""A run as it happens: its states, every step, samples, resume points and messages, from the first record to the end.

The server streams what `watch` yields. Each watcher reads the bucket by itself, so watchers may come late, repeatedly,
and to any replica of the service.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from trainer.event_reader import EventReader
from trainer.events import FinishedRecord, MessageRecord, ProgressRecord, ResumePointRecord, SampleRecord, Shown
from trainer.runs import Run, Runs

Happening = Run | ProgressRecord | SampleRecord | ResumePointRecord | MessageRecord


async def watch(runs: Runs, name: str, poll_seconds: float) -> AsyncIterator[Happening]:
    """Everything that happens in a run; the first and the last item are the Run itself. Raises NotFound."""
    spec, _ = await asyncio.to_thread(runs.manifest, name)
    reader, shown = EventReader(runs.store, name), Shown()
    entered: tuple[object, ...] | None = None
    while True:
        # The state first: what a run that is over has recorded is then complete.
        run = await asyncio.to_thread(runs.state, spec)
        seen = (run.state, len(run.status.attempts), run.pending_reason)
        is_new = entered != seen
        if entered is None or (is_new and not run.finished):
            yield await asyncio.to_thread(runs.detailed, run)
        if is_new and run.pending_reason:
            yield MessageRecord(f"waiting: {run.pending_reason}", "warning", datetime.now(UTC))
        entered = seen
        for record in shown.news(await asyncio.to_thread(reader.read_new)):
            if not isinstance(record, FinishedRecord):
                yield record
        if run.finished:
            yield await asyncio.to_thread(runs.detailed, run)
            return
        await asyncio.sleep(poll_seconds)
