"""Watching and stopping: progress, previews, interrupt, skip, the queue, a client that goes away.

The long generations here would take minutes; that a test ends at all shows that they were stopped.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from .conftest import Running, decoded, open_base64

LONG = {"prompt": "a red circle", "steps": 1000, "seed": 1, "cfg_scale": 1}


@pytest.fixture
def send(client: httpx.Client) -> Iterator[Callable[..., "Future[httpx.Response]"]]:
    """Send txt2img in the background."""
    with ThreadPoolExecutor(4) as pool:

        def start(**fields: Any) -> "Future[httpx.Response]":
            return pool.submit(client.post, "/sdapi/v1/txt2img", json={**LONG, **fields})

        yield start
        client.post("/sdapi/v1/interrupt")


def wait_until(client: httpx.Client, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Ask for progress until it is so."""
    while True:
        reply: dict[str, Any] = client.get("/sdapi/v1/progress").json()
        if condition(reply):
            return reply


def test_progress_counts_steps_and_shows_the_picture(client: httpx.Client, send: Callable[..., Any]) -> None:
    sent = send()
    first = wait_until(client, lambda reply: reply["state"]["sampling_step"] >= 1)
    later = wait_until(client, lambda reply: reply["state"]["sampling_step"] > first["state"]["sampling_step"])
    assert later["state"]["sampling_steps"] == 1000
    assert later["progress"] == pytest.approx(0.01 + later["state"]["sampling_step"] / 1000)
    assert later["eta_relative"] > 0
    assert open_base64(later["current_image"]).size == (64, 64)
    assert client.get("/sdapi/v1/progress?skip_current_image=true").json()["current_image"] is None
    client.post("/sdapi/v1/interrupt")
    sent.result()


def test_interrupt_answers_with_what_exists(client: httpx.Client, send: Callable[..., Any]) -> None:
    sent = send(n_iter=3)
    wait_until(client, lambda reply: reply["state"]["sampling_step"] >= 1)
    assert client.post("/sdapi/v1/interrupt").json() == {}
    reply = decoded(sent.result())
    assert len(reply["images"]) == 1
    assert reply["info"]["all_seeds"] == [1]
    assert client.get("/sdapi/v1/progress").json()["state"]["job_count"] == 0


def test_skip_goes_on_with_the_next_batch(client: httpx.Client, send: Callable[..., Any]) -> None:
    sent = send(n_iter=2)
    wait_until(client, lambda reply: reply["state"]["sampling_step"] >= 1)
    client.post("/sdapi/v1/skip")
    second = wait_until(client, lambda reply: reply["state"]["job_no"] == 1)
    assert second["progress"] >= 0.5
    client.post("/sdapi/v1/interrupt")
    assert len(decoded(sent.result())["images"]) == 2


def test_requests_wait_in_order_and_can_be_asked_for(client: httpx.Client, send: Callable[..., Any]) -> None:
    running = send(force_task_id="task(one)")
    wait_until(client, lambda reply: reply["state"]["sampling_step"] >= 1)
    waiting = send(force_task_id="task(two)", steps=1)
    while client.get("/internal/pending-tasks").json() != {"size": 1, "tasks": ["task(two)"]}:
        pass
    queued = client.post("/internal/progress", json={"id_task": "task(two)"}).json()
    assert (queued["queued"], queued["active"], queued["textinfo"]) == (True, False, "In queue: 1/1")
    active = client.post("/internal/progress", json={"id_task": "task(one)"}).json()
    assert active["active"] is True
    assert 0 < active["progress"] < 1
    assert active["live_preview"].startswith("data:image/png;base64,")
    same = client.post("/sdapi/v1/txt2img", json={**LONG, "force_task_id": "task(two)"})
    assert same.status_code == 422
    client.post("/sdapi/v1/interrupt")
    assert len(decoded(waiting.result())["images"]) == 1
    assert running.result().status_code == 200
    done = client.post("/internal/progress", json={"id_task": "task(two)"}).json()
    assert done["completed"] is True


def test_a_client_that_goes_away_takes_its_work_with_it(running: Running, client: httpx.Client) -> None:
    short = httpx.Timeout(60, read=0.2)
    with (
        httpx.Client(base_url=running.url, auth=client.auth, timeout=short) as leaving,
        pytest.raises(httpx.ReadTimeout),
    ):
        leaving.post("/sdapi/v1/txt2img", json={**LONG, "force_task_id": "task(gone)"})
    while running.engine.worker.state("task(gone)") in ("active", "queued"):
        client.get("/internal/ping")
    assert decoded(client.post("/sdapi/v1/txt2img", json={**LONG, "steps": 1}))["info"]["seed"] == 1
