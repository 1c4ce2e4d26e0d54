"""The table "What a Job survives" of docs/training-jobs.md: read from there, and made from what was found."""

from typing import Final, NamedTuple

from tests.cluster.jobs_cases import Case
from tests.cluster.jobs_outcome import Attempt, Result
from tests.cluster.jobs_runs import ROOT

_DOCUMENT: Final = ROOT / "docs/training-jobs.md"
_HEADING: Final = "## What a Job survives"


class Row(NamedTuple):
    """A row, cell by cell, as it is written."""

    cause: str
    pods: str
    counted: str
    end: str
    training: str


def documented() -> dict[str, Row]:
    """The rows of the document by what happens."""
    section = _DOCUMENT.read_text().partition(f"\n{_HEADING}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    rows = [Row(*(cell.strip() for cell in line.strip("|").split("|"))) for line in lines]
    return {row.cause: row for row in rows}


def row_of(cause: str, case: Case, reference: Result) -> Row:
    """The row that a case deserves."""
    pods = ", then ".join(dict.fromkeys(_shown(attempt) for attempt in case.attempts))
    equal = "no checkpoint"
    if case.result is not None:
        equal = "bit-equal" if case.result == reference else "other weights or losses"
    return Row(cause, pods, str(case.num_counted), case.end, equal)


def line_of(row: Row) -> str:
    """The row as a line of the document."""
    return f"| {' | '.join(row)} |"


def _shown(attempt: Attempt) -> str:
    """How a pod ended, such as: 143 (`DisruptionTarget`: `EvictionByEvictionAPI`)."""
    if attempt.disruption:
        return f"{attempt.exit_code} (`DisruptionTarget`: `{attempt.disruption}`)"
    told = attempt.reason not in ("Completed", "Error")
    return f"{attempt.exit_code} (`{attempt.reason}`)" if told else str(attempt.exit_code)
