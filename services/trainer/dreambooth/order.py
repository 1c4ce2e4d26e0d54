"""The order of one run, as the parts of the program pass it on."""

from dataclasses import dataclass
from pathlib import Path

from artifacts.store import ObjectStore

from dreambooth.inputs import Inputs
from dreambooth.lease import Lease
from dreambooth.recipe import Recipe
from dreambooth.records import Records
from dreambooth.world import World


@dataclass(frozen=True)
class Order:
    """What to do, with what and where.

    run: "sessions/<session>/runs/<run>". scratch: a local folder to write in. records, lease: how and with what right the
    run is written; None in the processes that do not write. accept_inexact: go on from a resume point although something
    changed. save_seconds: how long the last resume point may take after SIGTERM.
    """

    run: str
    recipe: Recipe
    inputs: Inputs
    store: ObjectStore
    scratch: Path
    world: World
    records: Records | None = None
    lease: Lease | None = None
    accept_inexact: bool = False
    save_seconds: float = 20.0

    def message(self, text: str, level: str = "info") -> None:
        """A line for a person, from the process that writes."""
        if self.records:
            self.records.message(text, level)
