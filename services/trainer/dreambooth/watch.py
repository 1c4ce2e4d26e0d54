"""Long work on many things before the first step, such as fetching ten thousand images: said how far it is, and ended by SIGTERM."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

from dreambooth.exits import StopSignal

_PARALLEL: Final = 8
_TELL_SECONDS: Final = 10.0
T = TypeVar("T")
R = TypeVar("R")


def _nobody(text: str) -> None:
    """Hears nothing."""


@dataclass(frozen=True)
class Watch:
    """tell: gets a sentence every ten seconds. stop: asked after each item; its errors end the work."""

    tell: Callable[[str], None] = _nobody
    stop: StopSignal = field(default_factory=StopSignal)

    def over(self, items: Iterable[T], total: int, what: str) -> Iterator[T]:
        """The items. what: words for the sentences, "fetching images" for "fetching images: 3,200 of 10,000"."""
        told = time.monotonic()
        for done, item in enumerate(items, 1):
            self.stop.check()
            if done < total and time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                self.tell(f"{what}: {done:,} of {total:,}")
            yield item

    def each(self, work: Callable[[T], R], items: Sequence[T], what: str) -> list[R]:
        """What `work` gives for each item, in their order; several at a time. Raises what `work` raises."""
        with ThreadPoolExecutor(_PARALLEL, thread_name_prefix=what.replace(" ", "-")) as pool:
            try:
                return list(self.over(pool.map(work, items), len(items), what))
            finally:
                pool.shutdown(cancel_futures=True)  # after an error nobody waits for the others
