"""What the program reads from its environment, once, in `__main__`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from artifacts.store import StoreConfig
from chassis import logs
from chassis.config import setting

_RUN = re.compile(r"sessions/(?P<session>[a-z0-9][a-z0-9-]{0,62})/runs/(?P<run>[a-z0-9][a-z0-9-]{0,39})")


@dataclass(frozen=True)
class ProgramConfig:
    """The order of one run."""

    store: StoreConfig
    run: str = setting("DARKROOM_RUN", 'the run to carry out, "sessions/<session>/runs/<run>"')
    recipe: str = setting("DARKROOM_RECIPE", "how to train, a JSON object: see dreambooth.recipe")
    device: str = setting(
        "DARKROOM_DEVICE",
        "where to compute; auto: a GPU if there is one, cuda: a GPU, of NVIDIA or AMD, or not at all",
        default="auto",
        choices=("auto", "cpu", "cuda"),
    )
    processes: int = setting(
        "DARKROOM_PROCESSES",
        "processes that train together on this machine, one for each GPU",
        default=1,
        minimum=1,
        maximum=64,
    )
    nodes: int = setting(
        "DARKROOM_NODES",
        "machines that train together, each with DARKROOM_PROCESSES and a number of its own",
        default=1,
        minimum=1,
        maximum=64,
    )
    node: int = setting(
        "JOB_COMPLETION_INDEX", "number of this machine among DARKROOM_NODES, from 0", default=0, minimum=0
    )
    master_address: str = setting(
        "MASTER_ADDR", "name or address of machine 0, if DARKROOM_NODES is over 1", default=""
    )
    master_port: int = setting(
        "MASTER_PORT", "port of machine 0 at which they meet", default=29500, minimum=1, maximum=65535
    )
    accept_inexact: bool = setting(
        "DARKROOM_ACCEPT_INEXACT",
        "go on from a resume point although something has changed since; the checkpoint is marked",
        default=False,
    )
    save_seconds: float = setting(
        "DARKROOM_SAVE_SECONDS", "how long the last resume point may take after SIGTERM", default=20.0, minimum=1
    )
    log_level: str = setting("DARKROOM_LOG_LEVEL", "least level that is logged", default="info", choices=logs.LEVELS)
    log_format: str = setting("DARKROOM_LOG_FORMAT", "form of a log record", default="json", choices=logs.FORMATS)

    def problems(self) -> Iterator[str]:
        """The rules that a type cannot state."""
        if not _RUN.fullmatch(self.run):
            yield f'DARKROOM_RUN is {self.run!r}: expected "sessions/<session>/runs/<run>"'
        if self.nodes > 1 and not self.master_address:
            yield f"MASTER_ADDR is not set: expected the address of machine 0, because DARKROOM_NODES is {self.nodes}"
        if self.nodes > 1 and self.node >= self.nodes:
            yield f"JOB_COMPLETION_INDEX is {self.node}: expected less than DARKROOM_NODES, {self.nodes}"

    @property
    def num_workers(self) -> int:
        """Processes that train together, on all machines."""
        return self.nodes * self.processes

    @property
    def session(self) -> str:
        """Name of the session."""
        return self.run.split("/")[1]

    @property
    def run_id(self) -> str:
        """Last part of the run's name."""
        return self.run.split("/")[3]

    @property
    def folder(self) -> str:
        """Key prefix of everything this run writes beside its checkpoint, with its slash."""
        return f"{self.run}/"
