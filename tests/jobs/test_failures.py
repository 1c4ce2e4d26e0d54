"""Exit codes and what follows, as docs/exit-codes.md says it."""

from dataclasses import replace

import pytest
from jobs.execution import Execution
from jobs.failures import failure_action
from jobs.render import render

from tests.jobs.test_render import SPEC

ONE, MANY = render(SPEC, Execution()), render(SPEC, replace(Execution(), nodes=2))


@pytest.mark.parametrize("code", [64, 65, 66, 67, 68, 69, 78])
def test_wrong_input_fails_the_job(code: int) -> None:
    assert failure_action(ONE, code) == failure_action(MANY, code) == "FailJob"


@pytest.mark.parametrize("code", [1, 2, 63, 70, 75, 77, 79, 137, 143, None])
def test_other_ends_count(code: int | None) -> None:
    assert failure_action(ONE, code) == failure_action(MANY, code) == "Count"


def test_a_lost_partner_counts_only_where_there_is_no_other_pod_to_count() -> None:
    assert failure_action(ONE, 76) == "Count"
    assert failure_action(MANY, 76) == "Ignore"
