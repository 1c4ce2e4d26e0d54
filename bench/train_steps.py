"""Steps per second of the trainer's loop over those of a plain loop in the order of diffusers' script.

Each computes in as many threads as it does when somebody starts it: the plain loop in torch's number, ours in what
`dreambooth.threads` settles. The plain loop in ours' number of threads is told beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from bench import comparing
from bench.comparing import Spread
from bench.workshop import BareLoop, Workshop


@dataclass(frozen=True)
class Case:
    """joint: text encoder and UNet train together."""

    joint: bool
    batch_size: int

    def __str__(self) -> str:
        return f"{'text encoder + UNet' if self.joint else 'UNet'}, batch {self.batch_size}"


CASES = (Case(False, 1), Case(False, 4), Case(True, 1), Case(True, 4))


def measure(workshop: Workshop, case: Case, blocks: int, steps: int) -> None:
    """Tell the ratios; `blocks` blocks of `steps` steps of each loop."""
    torchs = torch.get_num_threads()
    run = f"steps-{case.batch_size}-{'joint' if case.joint else 'unet'}"
    ours = BareLoop.of(workshop.order(run, joint=case.joint, batch_size=case.batch_size))
    settled = torch.get_num_threads()
    plain = workshop.plain(case.batch_size, joint=case.joint)

    def advance_plain() -> None:
        for _ in range(steps):
            plain.step()

    ways = {
        "plain": _in_threads(torchs, advance_plain),
        "ours": _in_threads(settled, lambda: ours.advance(steps)),
        "plain_alike": _in_threads(settled, advance_plain),
    }
    seconds = comparing.in_turns(ways, blocks)
    torch.set_num_threads(torchs)
    rates = {name: Spread.of([steps / each for each in found]).median for name, found in seconds.items()}
    ratio = comparing.ratios(seconds["plain"], seconds["ours"])
    ratio_alike = comparing.ratios(seconds["plain_alike"], seconds["ours"])
    comparing.tell(
        "train_steps",
        f"{case}: {rates['ours']:.1f} steps/s in {settled} threads, plain {rates['plain']:.1f} in {torchs}; ratio {ratio}; "
        f"over plain in {settled}: {ratio_alike}",
        joint=case.joint,
        batch_size=case.batch_size,
        steps_per_second=rates["ours"],
        plain_steps_per_second=rates["plain"],
        ratio=ratio,
        ratio_in_equal_threads=ratio_alike,
        settled_threads=settled,
        blocks=blocks,
        steps_per_block=steps,
    )


def _in_threads(number: int, work: Callable[[], object]) -> Callable[[], None]:
    """The same work in so many threads of torch."""

    def begin() -> None:
        torch.set_num_threads(number)
        work()

    return begin
