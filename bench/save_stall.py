"""How long training stands still for a resume point: with the saver's thread, and if it waited until all is safe."""

import tempfile
from pathlib import Path

from dreambooth.exits import StopSignal
from dreambooth.lease import Lease
from dreambooth.resume_points import ResumePoints
from dreambooth.saver import Saver

from bench import comparing
from bench.comparing import Spread
from bench.workshop import SESSION, BareLoop, Workshop

_ABOUT = {"identity": {}, "progress": {}, "inexact": False}
_KEEP = 2
_CLOSE_SECONDS = 120.0


def measure(workshop: Workshop, num_points: int) -> None:
    """Tell the ratio of both stalls: `num_points` points of each kind, in turns, of one training's state."""
    bare = BareLoop.of(workshop.order("stall"))
    bare.advance(1)
    runs = f"sessions/{SESSION}/runs/stall"
    with (
        Lease.acquire(workshop.store, f"{runs}-asynchronous/", StopSignal()) as one,
        Lease.acquire(workshop.store, f"{runs}-blocking/", StopSignal()) as other,
    ):
        staging = workshop.scratch / "stall" / "staging"
        staging.mkdir()
        saver = Saver(ResumePoints(workshop.store, f"{runs}-asynchronous/", one, _KEEP), staging, lambda *said: None)
        points = ResumePoints(workshop.store, f"{runs}-blocking/", other, _KEEP)
        asynchronous, blocking = [], []
        for _ in range(num_points + 1):  # the first of each opens connections
            asynchronous.append(comparing.seconds_of(lambda: saver.save(bare.position, _ABOUT, bare.save)))
            _train_until_saved(bare, saver)
            blocking.append(comparing.seconds_of(lambda: _save_and_wait(bare, points)))
            bare.advance(1)
        saver.close(_CLOSE_SECONDS)
    stall, waited = Spread.of(asynchronous[1:]), Spread.of(blocking[1:])
    size_bytes = saver.last.size_bytes if saver.last else 0
    ratio = comparing.ratios(blocking[1:], asynchronous[1:])
    comparing.tell(
        "save_stall",
        f"{size_bytes / 2**20:.0f} MiB: {stall.median:.3f} s, blocking {waited.median:.3f} s; ratio {ratio}",
        size_bytes=size_bytes,
        stall_seconds=stall,
        blocking_seconds=waited,
        ratio=ratio,
        points=num_points,
    )


def _train_until_saved(bare: BareLoop, saver: Saver) -> None:
    """Training goes on while the point is on its way, as in a run."""
    position = bare.position
    while saver.last is None or saver.last.position != position:
        saver.check()
        bare.advance(1)


def _save_and_wait(bare: BareLoop, points: ResumePoints) -> None:
    """Copy, upload, read back, publish: all before training goes on."""
    with tempfile.TemporaryDirectory() as folder:
        bare.save(Path(folder))
        points.write(bare.position, Path(folder), _ABOUT)
