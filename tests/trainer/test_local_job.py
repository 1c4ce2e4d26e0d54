"""Runs as processes of this machine: retries, cancel, restarts."""

from artifacts.store import ObjectStore
from tests.trainer.conftest import Client, Fill, order, steps, watched
from darkroom.trainer.v1 import training_pb2 as pb


async def test_a_run_succeeds_and_shows_every_step(client: Client, session: Fill, store: ObjectStore) -> None:
    run = await client.training.CreateRun(order(await session(), "steps 5, sample 5, exit 0"))
    assert run.state in (pb.RUN_STATE_PENDING, pb.RUN_STATE_RUNNING)
    events = await watched(client, run.name)
    assert steps(events) == [1, 2, 3, 4, 5]
    assert events[0].run.name == run.name
    assert events[-1].run.state == pb.RUN_STATE_SUCCEEDED
