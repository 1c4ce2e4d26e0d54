"""The rest of the API: auth on every route, lists, options, memory."""

import base64

import httpx
import pytest
from webui_engine.app import create_app
from webui_engine.auth import OPEN_PATHS

from .conftest import TOKEN, Running, as_base64, drawing, refused


def basic(text: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


WRONG = [
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": "Bearer"},
    {"Authorization": "Basic !"},
    {"Authorization": TOKEN},
    basic("user:wrong"),
    basic(f"{TOKEN}:"),
    basic(f"user:{TOKEN}x"),
]


def test_every_route_asks_for_the_token(running: Running) -> None:
    routes = [(path, method) for path, item in create_app(running.engine).openapi()["paths"].items() for method in item]
    assert len(routes) > 40
    with httpx.Client(base_url=running.url, timeout=60) as client:
        for path, method in routes:
            if path in OPEN_PATHS:
                continue
            for headers in WRONG:
                response = client.request(method, path, headers=headers)
                assert response.status_code == 401, (method, path, headers)
                assert response.headers["www-authenticate"] == "Basic"


@pytest.mark.parametrize("path", ["/", "/no/such/route", "/sdapi/v1/no-such", "/docs", "/openapi.json"])
def test_so_does_every_other_path(running: Running, path: str) -> None:
    assert httpx.get(f"{running.url}{path}").status_code == 401


@pytest.mark.parametrize(
    "headers", [basic(f"anyone:{TOKEN}"), basic(f":{TOKEN}"), {"Authorization": f"Bearer {TOKEN}"}]
)
def test_the_token_opens(running: Running, headers: dict[str, str]) -> None:
    response = httpx.get(f"{running.url}/internal/ping", headers=headers)
    assert response.status_code == 200
    assert float(response.headers["x-process-time"]) >= 0


def test_health_needs_no_token(running: Running) -> None:
    assert httpx.get(f"{running.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{running.url}/readyz").json() == {"status": "ready"}


def test_metrics_count_requests(running: Running, client: httpx.Client) -> None:
    client.get("/sdapi/v1/samplers")
    text = httpx.get(running.metrics_url).text
    assert 'darkroom_engine_requests_total{route="/sdapi/v1/samplers",status="200"}' in text
    assert "darkroom_engine_ready 1.0" in text


def test_an_unknown_route_is_a1111s_error(client: httpx.Client) -> None:
    refused(client.get("/sdapi/v1/no-such"), 404, "/sdapi/v1/no-such")
    refused(client.get("/sdapi/v1/txt2img"), 405)


def test_models_have_titles_and_hashes(client: httpx.Client) -> None:
    (model,) = [m for m in client.get("/sdapi/v1/sd-models").json() if m["model_name"] == "sd15-tiny"]
    assert model["title"] == f"sd15-tiny [{model['sha256'][:10]}]"
    assert model["hash"] == model["sha256"][:10]
    assert set(model) == {"title", "model_name", "hash", "sha256", "filename", "config"}


def test_samplers_and_schedulers_have_a1111s_shape(client: httpx.Client) -> None:
    samplers = {item["name"]: item for item in client.get("/sdapi/v1/samplers").json()}
    assert samplers["DPM++ 2M"] == {"name": "DPM++ 2M", "aliases": ["k_dpmpp_2m"], "options": {"scheduler": "karras"}}
    schedulers = client.get("/sdapi/v1/schedulers").json()
    assert {"name", "label", "aliases", "default_rho", "need_inner_model"} == set(schedulers[0])
    assert ("sgm_uniform", "SGM Uniform") in {(item["name"], item["label"]) for item in schedulers}


@pytest.mark.parametrize(
    "path", ["sd-vae", "prompt-styles", "hypernetworks", "face-restorers", "realesrgan-models", "extensions"]
)
def test_what_there_is_none_of_is_an_empty_list(client: httpx.Client, path: str) -> None:
    assert client.get(f"/sdapi/v1/{path}").json() == []


def test_the_other_lists(client: httpx.Client) -> None:
    assert [item["name"] for item in client.get("/sdapi/v1/upscalers").json()] == ["None", "Lanczos", "Nearest"]
    assert client.get("/sdapi/v1/embeddings").json() == {"loaded": {}, "skipped": {}}
    assert client.get("/sdapi/v1/scripts").json() == {"txt2img": ["controlnet"], "img2img": ["controlnet"]}
    assert [item["is_img2img"] for item in client.get("/sdapi/v1/script-info").json()] == [False, True]


def test_memory_and_flags_hold_no_secret(client: httpx.Client) -> None:
    memory = client.get("/sdapi/v1/memory").json()
    assert 0 < memory["ram"]["used"] < memory["ram"]["total"]
    assert "cuda" in memory
    flags = client.get("/sdapi/v1/cmd-flags")
    assert flags.json()["api"] is True
    assert TOKEN not in flags.text


def test_idle_progress_is_zero(client: httpx.Client) -> None:
    reply = client.get("/sdapi/v1/progress").json()
    assert (reply["progress"], reply["eta_relative"], reply["state"]["job_count"]) == (0, 0, 0)
    assert reply["current_image"] is None
    assert client.post("/sdapi/v1/interrupt").json() == {}
    assert client.post("/sdapi/v1/skip").json() is None


def test_options_are_kept(client: httpx.Client) -> None:
    assert client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 2}).json() is None
    options = client.get("/sdapi/v1/options").json()
    assert options["CLIP_stop_at_last_layers"] == 2
    assert client.post("/sdapi/v1/options", json=options).status_code == 200  # what a client got it may send back


@pytest.mark.parametrize("alias", ["sd15-tiny", "SD15-Tiny", "title", "sha256", "hash", "filename"])
def test_a_model_is_set_by_any_alias(client: httpx.Client, alias: str) -> None:
    model = client.get("/sdapi/v1/sd-models").json()[0]
    response = client.post("/sdapi/v1/options", json={"sd_model_checkpoint": model.get(alias, alias)})
    assert response.status_code == 200, response.text
    assert client.get("/sdapi/v1/options").json()["sd_model_checkpoint"] == model["title"]


@pytest.mark.parametrize(
    ("body", "part"),
    [
        ({"sd_model_checkpoint": "dog"}, "checkpoint 'dog' not found"),
        ({"no_such_option": 1}, "no_such_option"),
        ({"CLIP_stop_at_last_layers": 0}, "from 1 to 12"),
        ({"samples_format": "jpg"}, "png"),
        ({"sd_model_checkpoint": "sd15-tiny", "sd_checkpoint_hash": "0123456789ab"}, "two models"),
    ],
)
def test_wrong_options_change_nothing(client: httpx.Client, body: dict[str, object], part: str) -> None:
    before = client.get("/sdapi/v1/options").json()
    refused(client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 3, **body}), 422, part)
    assert client.get("/sdapi/v1/options").json() == before


def test_unload_and_reload(client: httpx.Client) -> None:
    assert client.post("/sdapi/v1/unload-checkpoint").json() == {}
    assert client.post("/sdapi/v1/reload-checkpoint").json() == {}


def test_png_info_of_a_picture_without_one(client: httpx.Client) -> None:
    reply = client.post("/sdapi/v1/png-info", json={"image": as_base64(drawing())}).json()
    assert reply == {"info": "", "items": {}, "parameters": {}}
    refused(client.post("/sdapi/v1/png-info", json={"image": "?"}), 422, "image")
