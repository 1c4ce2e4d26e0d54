"""Configuration of the trainer and of its local supervisor, read once from the environment by their `__main__`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifacts.config import StoreConfig
from chassis.config import ServerConfig, setting
from jobs import execution_file
from jobs.errors import FileInvalid
from jobs.execution import Execution


@dataclass(frozen=True)
class LocalConfig:
    """How runs are executed on this machine; the supervisor of each run reads the same."""

    state_dir: Path = setting("DARKROOM_STATE_DIR", "folder for locks, process ids and logs of runs on this machine")
    backoff_seconds: float = setting(
        "DARKROOM_BACKOFF_SECONDS", "pause before the first retry of a run; doubles each time", default=2.0, minimum=0
    )
    poll_seconds: float = setting(
        "DARKROOM_POLL_SECONDS", "interval at which runs are looked at", default=0.5, minimum=0.01, maximum=60
    )
    run_command: str = setting(
        "DARKROOM_RUN_COMMAND", "program that executes a run, with its arguments", default="python -m dreambooth"
    )

    def problems(self) -> Iterator[str]:
        """What a type cannot state."""
        if not self.run_command.strip():
            yield "DARKROOM_RUN_COMMAND is blank: expected a program"


@dataclass(frozen=True)
class TrainerConfig:
    """Everything the trainer can be told."""

    server: ServerConfig
    store: StoreConfig
    local: LocalConfig
    backend: str = setting(
        "DARKROOM_BACKEND",
        "what executes runs: processes of this machine, or Jobs of a cluster, reached by the pod's account or KUBECONFIG",
        default="local",
        choices=("local", "kubernetes"),
    )
    execution: str = setting(
        "DARKROOM_EXECUTION", "YAML file that says how Jobs are made; for the kubernetes backend", default=""
    )
    cluster: str = setting(
        "DARKROOM_CLUSTER",
        "name of the cluster in its runs; needed where trainings of several clusters share a bucket",
        default="",
    )
    models: str = setting(
        "DARKROOM_MODELS", "folder of base models in the diffusers layout; empty: only those in the bucket", default=""
    )
    stop_runs: bool = setting(
        "DARKROOM_STOP_RUNS", "interrupt runs when the service stops; they go on when it starts again", default=False
    )
    run_image: str = setting(
        "DARKROOM_RUN_IMAGE", "container image of the program in a manifest", default="darkroom-trainer:0.1.0"
    )
    run_gpus: int = setting("DARKROOM_RUN_GPUS", "GPUs a run asks for in a manifest", default=0, minimum=0, maximum=16)
    backoff_limit: int = setting(
        "DARKROOM_BACKOFF_LIMIT", "retries of a run after failures that may pass", default=3, minimum=0, maximum=100
    )
    grace_seconds: int = setting(
        "DARKROOM_RUN_GRACE_SECONDS", "time a run has between SIGTERM and SIGKILL", default=60, minimum=1, maximum=3600
    )

    def problems(self) -> Iterator[str]:
        """What a type cannot state."""
        if self.models and not Path(self.models).is_dir():
            yield f"DARKROOM_MODELS is {self.models!r}: there is no such folder"
        if not re.fullmatch(r"[A-Za-z0-9._-]*", self.cluster):
            yield f"DARKROOM_CLUSTER is {self.cluster!r}: expected letters, digits, '.', '_' and '-'"
        if self.backend == "kubernetes":
            yield from self._execution_problems()
        elif self.execution:
            yield "DARKROOM_EXECUTION is given, but DARKROOM_BACKEND is local: runs here are made from DARKROOM_RUN_*"

    def read_execution(self) -> Execution:
        """The file of DARKROOM_EXECUTION. Raises FileInvalid, OSError and UnicodeDecodeError."""
        return execution_file.read_execution(Path(self.execution).read_text("utf-8"), self.execution)

    def _execution_problems(self) -> Iterator[str]:
        if not self.execution:
            yield "DARKROOM_EXECUTION is missing: DARKROOM_BACKEND is kubernetes, whose Jobs it describes"
            return
        try:
            self.read_execution()
        except FileInvalid as error:
            yield from error.problems
        except (OSError, UnicodeDecodeError) as error:
            yield f"DARKROOM_EXECUTION is {self.execution!r}: it cannot be read ({error})"


@dataclass(frozen=True)
class SupervisorConfig:
    """What a supervisor is told by the service that starts it."""

    store: StoreConfig
    local: LocalConfig
