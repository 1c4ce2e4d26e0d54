"""One run as it was ordered."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from jobs.recipe import Recipe

UNDATED: Final = datetime.fromtimestamp(0, UTC)
"""No time is said: a Job rendered from a file has the same bytes every day. Its creation in the cluster counts instead."""


@dataclass(frozen=True)
class RunSpec:
    """What was asked for, never changed afterwards.

    base_model_source: absolute folder or prefix of the bucket. checkpoint: id that is published. owner: the machine that
    executes it, "" for a cluster. request_id and request_digest make a repeated request recognisable.
    """

    session: str
    run_id: str
    recipe: Recipe
    base_model_source: str
    checkpoint: str
    create_time: datetime = UNDATED
    owner: str = ""
    request_id: str = ""
    request_digest: str = ""

    @property
    def name(self) -> str:
        """Resource name."""
        return f"sessions/{self.session}/runs/{self.run_id}"
