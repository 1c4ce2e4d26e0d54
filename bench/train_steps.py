"""Steps per second of the trainer's loop over those of a plain loop in the order of diffusers' script."""

from dataclasses import dataclass
from functools import partial

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
    """Tell the ratio; `blocks` blocks of `steps` steps of each loop."""
    run = f"steps-{case.batch_size}-{'joint' if case.joint else 'unet'}"
    ours = BareLoop.of(workshop.order(run, joint=case.joint, batch_size=case.batch_size))
    plain = workshop.plain(case.batch_size, joint=case.joint)

    def advance_plain() -> None:
        for _ in range(steps):
            plain.step()

    seconds = comparing.in_turns({"plain": advance_plain, "ours": partial(ours.advance, steps)}, blocks)
    rates = {name: Spread.of([steps / each for each in found]).median for name, found in seconds.items()}
    ratio = comparing.ratios(seconds["plain"], seconds["ours"])
    comparing.tell(
        "train_steps",
        f"{case}: {rates['ours']:.1f} steps/s, plain {rates['plain']:.1f}; ratio {ratio}",
        joint=case.joint,
        batch_size=case.batch_size,
        steps_per_second=rates["ours"],
        plain_steps_per_second=rates["plain"],
        ratio=ratio,
        blocks=blocks,
        steps_per_block=steps,
    )
