"""TrainingService as its clients see it: what is accepted, refused, repeated, listed and counted."""

import asyncio
import json
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from artifacts.records import encode
from artifacts.store import ObjectStore
from artifacts.testing import Proxy
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from google.rpc import error_details_pb2
from grpc import StatusCode
from trainer.config import TrainerConfig

from tests.trainer.conftest import Client, detail, filled, order, reason, serving, until_message, upload, watched


async def refused(client: Client, request: pb.CreateRunRequest) -> tuple[StatusCode, str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.training.CreateRun(request)
    return caught.value.code(), reason(caught.value), caught.value.details() or ""


async def test_a_run_tells_everything_that_was_asked_for(client: Client, session: str, store: ObjectStore) -> None:
    request = order(session, "steps 2, sample 2", run_id="first")
    run = await client.training.CreateRun(request)
    assert run.name == "sessions/robot/runs/first"
    assert run.checkpoint.startswith("checkpoints/robot-first-")
    assert (run.recipe.base_model, run.recipe.resolution_px, run.recipe.batch_size) == ("sd15-tiny", 64, 1)
    assert (run.recipe.unet.steps, run.recipe.unet.learning_rate) == (5, 1e-3)
    assert run.recipe.unet.schedule == pb.LEARNING_RATE_SCHEDULE_LINEAR
    events = await watched(client, run.name)
    done = await client.training.GetRun(pb.GetRunRequest(name=run.name))
    assert events[-1].run == done
    assert (done.progress.step, done.progress.num_steps, done.progress.stage) == (2, 5, pb.STAGE_UNET)
    assert done.create_time.seconds <= done.start_time.seconds <= done.end_time.seconds
    sample = next(event.sample for event in events if event.WhichOneof("event") == "sample")
    assert (sample.step, sample.prompt, sample.data) == (2, "a robot", b"picture")
    store.delete(sample.object)
    sample.data = b""
    assert sample in [event.sample for event in await watched(client, run.name)]
    job = json.loads(store.get(f"{run.name}/job.json"))
    assert (job["kind"], job["metadata"]["labels"]["darkroom.dev/run"]) == ("Job", "first")
    assert json.loads(store.get(f"{run.name}/status.json"))["succeeded"] == 1


async def test_a_stage_that_is_not_named_keeps_its_defaults(client: Client, session: str) -> None:
    recipe = pb.Recipe(unet=pb.StageSettings(steps=0), sample_prompts=["exit 0"])
    run = await client.training.CreateRun(pb.CreateRunRequest(parent=session, recipe=recipe))
    assert (run.recipe.text_encoder.steps, run.recipe.text_encoder.learning_rate) == (350, 1e-6)
    assert run.recipe.unet.steps == 0
    await watched(client, run.name)


class TestRefusals:
    """CreateRun says beforehand what can be known beforehand."""

    async def test_unknown_session(self, client: Client) -> None:
        code, why, text = await refused(client, order("sessions/nobody"))
        assert (code, why) == (StatusCode.NOT_FOUND, "NOT_FOUND")
        assert "'nobody'" in text

    async def test_empty_session(self, client: Client) -> None:
        wanted = session_pb.Session(base_model="sd15-tiny")
        await client.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="empty", session=wanted))
        assert (await refused(client, order("sessions/empty")))[:2] == (StatusCode.FAILED_PRECONDITION, "SESSION_EMPTY")

    async def test_no_base_model(self, client: Client, photo: bytes) -> None:
        made = await client.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="plain"))
        await upload(client, made.name, "one.png", photo)
        code, _, text = await refused(client, order(made.name))
        assert code == StatusCode.INVALID_ARGUMENT
        assert "recipe.base_model" in text

    async def test_unknown_base_model(self, client: Client, session: str) -> None:
        request = order(session)
        request.recipe.base_model = "sd99"
        code, why, text = await refused(client, request)
        assert (code, why) == (StatusCode.NOT_FOUND, "BASE_MODEL_UNKNOWN")
        assert "'sd99'" in text
        assert "sd15-tiny" in text

    async def test_resolution_that_the_base_model_cannot_do(self, client: Client, session: str) -> None:
        request = order(session)
        request.recipe.resolution_px = 512
        code, why, text = await refused(client, request)
        assert (code, why) == (StatusCode.FAILED_PRECONDITION, "RESOLUTION_UNSUPPORTED")
        assert "'sd15-tiny'" in text
        assert "512 px" in text

    async def test_caption_without_image(self, client: Client, session: str, store: ObjectStore) -> None:
        store.put(f"{session}/captions/ghost.txt", b"a ghost")
        code, why, text = await refused(client, order(session))
        assert (code, why) == (StatusCode.FAILED_PRECONDITION, "CAPTION_WITHOUT_IMAGE")
        assert "ghost.txt" in text

    async def test_missing_caption(self, client: Client, session: str) -> None:
        request = order(session)
        request.recipe.use_captions = request.recipe.require_captions = True
        code, why, text = await refused(client, request)
        assert (code, why) == (StatusCode.FAILED_PRECONDITION, "CAPTION_MISSING")
        assert "one.png" in text

    async def test_captions_required_but_not_used(self, client: Client, session: str) -> None:
        request = order(session)
        request.recipe.require_captions = True
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.training.CreateRun(request)
        violations = detail(caught.value, error_details_pb2.BadRequest).field_violations
        assert [violation.field for violation in violations] == ["recipe.require_captions"]

    @pytest.mark.parametrize(
        "recipe",
        [
            pb.Recipe(text_encoder=pb.StageSettings(steps=0), unet=pb.StageSettings(steps=0)),
            pb.Recipe(unet=pb.StageSettings(steps=1, learning_rate=float("nan"))),
            pb.Recipe(unet=pb.StageSettings(steps=1, learning_rate=0)),
            pb.Recipe(unet=pb.StageSettings(steps=1, learning_rate=float("inf"))),
            pb.Recipe(unet=pb.StageSettings(steps=-1, learning_rate=1e-6)),
            pb.Recipe(batch_size=65),
            pb.Recipe(resolution_px=65),
        ],
        ids=["steps 0/0", "NaN", "rate 0", "infinite rate", "negative steps", "batch", "resolution"],
    )
    async def test_settings_out_of_range(self, client: Client, session: str, recipe: pb.Recipe) -> None:
        request = pb.CreateRunRequest(parent=session, recipe=recipe)
        assert (await refused(client, request))[0] == StatusCode.INVALID_ARGUMENT


class TestOneRunAtATime:
    """A session trains once at a time, whoever asks."""

    async def test_of_many_at_once_one_wins(self, client: Client, session: str) -> None:
        calls = [client.training.CreateRun(order(session, "hold", run_id=f"run-{number}")) for number in range(8)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        started = [answer for answer in answers if isinstance(answer, pb.Run)]
        errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert len(started) == 1
        assert {reason(error) for error in errors} == {"RUN_ACTIVE"}
        listed = await client.training.ListRuns(pb.ListRunsRequest(parent=session))
        assert [run.name for run in listed.runs] == [started[0].name]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.sessions.DeleteSession(session_pb.DeleteSessionRequest(name=session))
        assert reason(caught.value) == "RUN_ACTIVE"

    async def test_the_next_one_follows_when_it_is_over(self, client: Client, session: str) -> None:
        first = await client.training.CreateRun(order(session, "exit 64"))
        await watched(client, first.name)
        second = await client.training.CreateRun(order(session, "exit 0"))
        assert (await watched(client, second.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.training.CancelRun(pb.CancelRunRequest(name=second.name))
        assert (caught.value.code(), reason(caught.value)) == (StatusCode.FAILED_PRECONDITION, "RUN_FINISHED")
        removed = await client.sessions.DeleteSession(session_pb.DeleteSessionRequest(name=session))
        assert removed.num_objects > 5

    async def test_a_creation_that_died_blocks_only_for_a_while(
        self, client: Client, session: str, store: ObjectStore
    ) -> None:
        def leave_behind(age: timedelta) -> None:
            record = {"schema": 1, "run": f"{session}/runs/dead", "time": (datetime.now(UTC) - age).isoformat()}
            store.put(f"{session}/runs/active.json", encode(record))

        leave_behind(timedelta(0))
        assert (await refused(client, order(session, "exit 0")))[1] == "RUN_ACTIVE"
        leave_behind(timedelta(minutes=1))
        run = await client.training.CreateRun(order(session, "exit 0"))
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED


class TestRepeats:
    """request_id makes a repeat safe."""

    async def test_the_same_request_gives_the_same_run(self, client: Client, session: str) -> None:
        request = order(session, "hold", request_id="once")
        answers = await asyncio.gather(*[client.training.CreateRun(request) for _ in range(4)], return_exceptions=True)
        names = {answer.name for answer in answers if isinstance(answer, pb.Run)}
        assert len(names) == 1
        assert (await client.training.CreateRun(request)).name == names.pop()

    async def test_another_request_with_the_same_id_is_refused(self, client: Client, session: str) -> None:
        await client.training.CreateRun(order(session, "hold", request_id="once"))
        code, why, _ = await refused(client, order(session, "exit 0", request_id="once"))
        assert (code, why) == (StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")

    async def test_a_taken_run_id(self, client: Client, session: str) -> None:
        run = await client.training.CreateRun(order(session, "exit 0", run_id="first"))
        await watched(client, run.name)
        assert (await refused(client, order(session, "exit 0", run_id="first")))[0] == StatusCode.ALREADY_EXISTS


async def test_runs_are_listed_newest_first_in_pages(client: Client, photo: bytes) -> None:
    names = []
    for number in range(3):
        session = await filled(client, photo, f"robot-{number}")
        run = await client.training.CreateRun(order(session, "exit 64", run_id="only"))
        names.insert(0, run.name)
    found, token = [], ""
    for _ in range(2):
        page = await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/-", page_size=2, page_token=token))
        found += [run.name for run in page.runs]
        token = page.next_page_token
    assert (found, token) == (names, "")
    one = await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/robot-1"))
    assert [run.name for run in one.runs] == ["sessions/robot-1/runs/only"]
    for name in names:
        await watched(client, name)


@pytest.mark.parametrize("token", ["%%%", "=", "\udcff".encode("utf-8", "surrogatepass").hex() + "!"])
async def test_a_page_token_that_nobody_gave_out(client: Client, token: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/-", page_token=token))
    assert reason(caught.value) == "PAGE_TOKEN_INVALID"


async def test_unknown_runs(client: Client, session: str) -> None:
    name = f"{session}/runs/nothing"
    for call in (
        client.training.GetRun(pb.GetRunRequest(name=name)),
        client.training.CancelRun(pb.CancelRunRequest(name=name)),
        client.training.WatchRun(pb.WatchRunRequest(name=name)).read(),
        client.training.ListRuns(pb.ListRunsRequest(parent="sessions/nobody")),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() == StatusCode.NOT_FOUND


async def test_metrics_follow_an_active_run(client: Client, session: str) -> None:
    run = await client.training.CreateRun(order(session, "steps 4, hold"))
    await until_message(client, run.name, "holding")

    def scrape() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{client.metrics_port}/metrics") as answer:
            return str(answer.read().decode())

    while 'darkroom_training_steps_total{stage="unet"} 4.0' not in (text := await asyncio.to_thread(scrape)):
        await asyncio.sleep(0.05)
    assert 'darkroom_training_loss{session="robot"} 0.25' in text
    assert 'darkroom_training_learning_rate{session="robot"} 0.001' in text
    assert 'darkroom_training_images_per_second{session="robot"} 5.0' in text
    assert 'darkroom_training_eta_seconds{session="robot"} 0.5' in text
    assert 'darkroom_runs{state="RUNNING"} 1.0' in text
    await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
    while 'session="robot"' in (text := await asyncio.to_thread(scrape)):
        await asyncio.sleep(0.05)
    assert 'darkroom_runs{state="CANCELLED"} 1.0' in text


async def test_records_damaged_by_hand_do_not_keep_the_service_from_starting(
    config: TrainerConfig, photo: bytes, store: ObjectStore
) -> None:
    store.put("sessions/torn/session.json", b"{")
    store.put("sessions/worn/runs/active.json", b"no JSON")
    async with serving(config) as client:
        run = await client.training.CreateRun(order(await filled(client, photo), "exit 0"))
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED
        listed = await client.training.ListRuns(pb.ListRunsRequest(parent="sessions/-"))
        assert [found.name for found in listed.runs] == [run.name]


async def test_a_run_goes_on_while_the_store_is_away(config: TrainerConfig, photo: bytes) -> None:
    with Proxy(config.store) as proxy:
        behind = replace(config, store=replace(proxy.config, retries=0, connect_timeout_seconds=0.2))
        async with serving(behind) as client:
            session = await filled(client, photo)
            run = await client.training.CreateRun(order(session, "steps 2, hold", "steps 5"))
            await until_message(client, run.name, "holding")
            proxy.lose_answers = 10_000
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.training.GetRun(pb.GetRunRequest(name=run.name))
            assert (caught.value.code(), reason(caught.value)) == (StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert detail(caught.value, error_details_pb2.RetryInfo).retry_delay.seconds == 5
            proxy.lose_answers = 0
            await client.training.CancelRun(pb.CancelRunRequest(name=run.name))
            assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_CANCELLED
