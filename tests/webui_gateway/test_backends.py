"""A real A1111 server as back end: what it would replace silently is refused, and its failures get the right names."""

import asyncio
import contextlib
import json
from typing import Any

import grpc
import pytest
from darkroom.webui.v1 import generation_pb2 as pb
from darkroom.webui.v1.generation_pb2_grpc import GenerationServiceStub

TXT2IMG = "/sdapi/v1/txt2img"


async def test_it_draws_what_was_asked(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        body = {
            "seed": 5,
            "sampler_index": "k_euler_a",
            "scheduler": "karras",
            "n_iter": 2,
            "override_settings": {"sd_model_checkpoint": "OTHER"},
        }
        answer = await up.http.post(TXT2IMG, json=body)
        assert answer.status_code == 200, answer.text
        assert json.loads(answer.json()["info"])["infotexts"] == [
            f"Seed: {seed}, Sampler: Euler a, Model: other.safetensors" for seed in (5, 6)
        ]
        assert a1111.bodies[0]["scheduler"] == "Karras"
        assert answer.headers["x-darkroom-job"]


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ({"override_settings": {"sd_model_checkpoint": "othr"}}, ("othr", "other")),
        ({"sampler_name": "Euler b"}, ("Euler b", "Euler a")),
        ({"scheduler": "Karas"}, ("Karas", "Karras")),
        ({"sampler_name": "DPM++ 2M Karas"}, ("DPM++ 2M Karas", "DPM++ 2M")),
        ({"script_name": "loopback"}, ("loopback", "x/y/z plot")),
        ({"alwayson_scripts": {"reactor": {"args": []}}}, ("reactor",)),
        ({"alwayson_scripts": {"controlnet": {"args": [{"model": "canny"}]}}}, ("canny", "other")),
        ({"override_settings": {"sd_model_checkpoint": "sdxl"}}, ("sdxl", "no back end has its weights")),
        ({"precision": "bf16"}, ("bf16", "other", "fp16")),
        ({"seed": "x"}, ("seed",)),
        ({"force_task_id": "задача"}, ("force_task_id", "ASCII")),
        ({"force_task_id": "two lines\n"}, ("force_task_id", "ASCII")),
    ],
)
async def test_nothing_is_replaced_silently(
    start: Any, a1111: Any, body: dict[str, Any], parts: tuple[str, ...]
) -> None:
    async with start(a1111.address) as up:
        answer = await up.http.post(TXT2IMG, json={**body, "steps": 2})
        assert answer.status_code == 422, answer.text
        for part in parts:
            assert part in answer.json()["detail"]
        assert a1111.bodies == []


async def test_options_with_an_unknown_checkpoint_change_nothing(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        options = {"CLIP_stop_at_last_layers": 2, "sd_model_checkpoint": "nothing"}
        assert (await up.http.post("/sdapi/v1/options", json=options)).status_code == 422
        assert a1111.options == {}
        options["sd_model_checkpoint"] = "other"
        assert (await up.http.post("/sdapi/v1/options", json=options)).status_code == 200
        assert a1111.options == {"CLIP_stop_at_last_layers": 2}
        assert (await up.http.get("/sdapi/v1/options")).json()["sd_model_checkpoint"] == "other.safetensors"
        await up.http.post(TXT2IMG, json={})
        assert a1111.bodies[0]["override_settings"] == {"sd_model_checkpoint": "other.safetensors"}


async def test_a_model_that_was_just_copied_there_is_found(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        assert (await up.http.get("/sdapi/v1/sd-models")).status_code == 200
        a1111.checkpoints = (*a1111.checkpoints, "new")
        answer = await up.http.post(TXT2IMG, json={"override_settings": {"sd_model_checkpoint": "new"}})
        assert answer.status_code == 200, answer.text


async def test_its_passwords_are_not_shown(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        flags = (await up.http.get("/sdapi/v1/cmd-flags")).json()
        assert flags == {"api_auth": None, "no_half": False, "precision": "autocast"}
        assert "pa:ss" not in (await up.http.get("/")).text


async def test_without_the_control_net_extension_the_list_is_empty(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        assert (await up.http.get("/controlnet/model_list")).json() == {"model_list": ["None"]}
        assert (await up.http.get("/controlnet/module_list")).status_code == 404


async def test_wrong_credentials_are_the_gateway_s_fault(start: Any, a1111: Any) -> None:
    async with start(a1111.url) as up:  # without user:password
        answer = await up.http.post(TXT2IMG, json={})
        assert answer.status_code == 503
        assert "credentials" in (await up.http.get("/")).text


async def test_no_back_end_is_503_with_retry_after(start: Any) -> None:
    async with start("http://127.0.0.1:9") as up:
        for answer in (await up.http.post(TXT2IMG, json={}), await up.http.get("/sdapi/v1/samplers")):
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(GenerationServiceStub(up.grpc).Generate(pb.GenerateRequest(model="models/v1-5"))))
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_lost_connection_is_drawn_again_with_the_same_seed(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        a1111.break_next = 1
        answer = await up.http.post(TXT2IMG, json={"seed": -1})
        assert answer.status_code == 200
        first, second = a1111.bodies
        assert first.pop("force_task_id") != second.pop("force_task_id")
        assert first == second
        assert json.loads(answer.json()["info"])["all_seeds"] == [first["seed"]]


@pytest.mark.parametrize(
    ("status", "http", "code"),
    [
        (422, 422, grpc.StatusCode.INVALID_ARGUMENT),
        (500, 502, grpc.StatusCode.INTERNAL),
        (503, 503, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_what_a_back_end_answers_keeps_its_meaning(
    start: Any, a1111: Any, status: int, http: int, code: grpc.StatusCode
) -> None:
    async with start(a1111.address) as up:
        a1111.status = status
        assert (await up.http.post(TXT2IMG, json={})).status_code == http
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in GenerationServiceStub(up.grpc).Generate(pb.GenerateRequest(model="models/v1-5")):
                pass
        assert caught.value.code() == code


async def test_two_share_the_load_and_jobs_have_places(start: Any, a1111: Any, second_a1111: Any) -> None:
    async with start(a1111.address, second_a1111.address) as up:
        a1111.hold.clear()
        second_a1111.hold.clear()
        calls = [
            asyncio.create_task(up.http.post(TXT2IMG, json={"force_task_id": f"job-{number}"})) for number in range(2)
        ]
        await asyncio.gather(a1111.drawing.wait(), second_a1111.drawing.wait())
        calls.append(asyncio.create_task(up.http.post(TXT2IMG, json={"force_task_id": "job-2"})))
        while not up.gateway.jobs.num_waiting:
            await asyncio.sleep(0)
        jobs = {job["id"]: job for job in (await up.http.get("/darkroom/v1/jobs")).json()}
        assert {jobs[f"job-{n}"]["backend"] for n in range(2)} == {a1111.url, second_a1111.url}
        assert (jobs["job-2"]["state"], jobs["job-2"]["queue_position"]) == ("PENDING", 1)
        assert (await up.http.get("/internal/pending-tasks")).json() == {"size": 1, "tasks": ["job-2"]}
        queued = (await up.http.post("/internal/progress", json={"id_task": "job-2"})).json()
        assert (queued["queued"], queued["textinfo"]) == (True, "In queue: 1/1")
        assert (await up.http.delete("/darkroom/v1/jobs/job-2")).json() == {"cancelled": True}
        assert (await up.http.delete("/darkroom/v1/jobs/nobody")).status_code == 404
        a1111.hold.set()
        second_a1111.hold.set()
        assert [answer.status_code for answer in await asyncio.gather(*calls)] == [200, 200, 499]


async def test_only_back_ends_that_have_the_model_are_asked(start: Any, a1111: Any, second_a1111: Any) -> None:
    second_a1111.checkpoints = ("v1-5", "only-here")
    async with start(a1111.address, second_a1111.address) as up:
        body = {"override_settings": {"sd_model_checkpoint": "only-here"}}
        answers = await asyncio.gather(*(up.http.post(TXT2IMG, json=body) for _ in range(3)))
        assert [answer.status_code for answer in answers] == [200] * 3
        assert (len(a1111.bodies), len(second_a1111.bodies)) == (0, 3)


async def test_samplers_and_scripts_of_all_are_listed_and_lead_to_a_back_end_that_has_them(
    start: Any, a1111: Any, second_a1111: Any
) -> None:
    second_a1111.samplers, second_a1111.scripts = ("DPM++ 2M", "LCM"), ("loopback wave",)
    async with start(a1111.address, second_a1111.address) as up:
        names = [line["name"] for line in (await up.http.get("/sdapi/v1/samplers")).json()]
        assert names == ["DPM++ 2M", "Euler a", "LCM"]
        scripts = (await up.http.get("/sdapi/v1/scripts")).json()
        assert scripts == {"img2img": ["loopback"], "txt2img": ["loopback wave", "x/y/z plot"]}
        for name, drawer in (("Euler a", a1111), ("LCM", second_a1111)):
            for _ in range(2):
                answer = await up.http.post(TXT2IMG, json={"sampler_name": name})
                assert f"Sampler: {name}," in answer.json()["info"]
            assert {body["sampler_name"] for body in drawer.bodies} == {name}


async def test_what_no_back_end_can_do_is_refused_with_what_each_lacks(
    start: Any, a1111: Any, second_a1111: Any
) -> None:
    second_a1111.samplers, second_a1111.scripts = ("DPM++ 2M", "LCM"), ()
    second_a1111.checkpoints = ("v1-5", "only-here")
    async with start(a1111.address, second_a1111.address) as up:
        unknown = await up.http.post(TXT2IMG, json={"sampler_name": "LCN"})
        assert (unknown.status_code, unknown.json()["error"]) == (422, "UnknownSampler")
        assert "'LCN' on the back ends that have model v1-5; did you mean LCM" in unknown.json()["detail"]
        only = {"override_settings": {"sd_model_checkpoint": "only-here"}, "sampler_name": "Euler a"}
        elsewhere = await up.http.post(TXT2IMG, json=only)
        assert elsewhere.status_code == 422
        assert "'Euler a' on the back ends that have model only-here" in elsewhere.json()["detail"]
        each = await up.http.post(TXT2IMG, json={"sampler_name": "LCM", "script_name": "X/Y/Z plot"})
        assert (each.status_code, each.json()["error"]) == (422, "NoBackendFits")
        assert f"{a1111.url}: unknown sampler 'LCM'" in each.json()["detail"]
        assert f"{second_a1111.url}: unknown script 'X/Y/Z plot'" in each.json()["detail"]
        assert a1111.bodies == second_a1111.bodies == []


async def test_a_listed_model_whose_file_is_gone_is_not_replaced_silently(start: Any, a1111: Any) -> None:
    a1111.hashed = True
    async with start(a1111.address) as up:
        body = {"override_settings": {"sd_model_checkpoint": "other"}}
        assert (await up.http.post(TXT2IMG, json=body)).status_code == 200
        a1111.gone = ("other",)
        answer = await up.http.post(TXT2IMG, json=body)
        assert answer.status_code == 502
        assert "instead of other.safetensors [" in answer.json()["detail"]


@pytest.mark.parametrize("content", ['{"cfg_scale": NaN}', '{"eta": -Infinity}', '{"prompt": "\\ud800"}'])
async def test_what_json_cannot_say_is_refused(start: Any, a1111: Any, content: str) -> None:
    async with start(a1111.address) as up:
        headers = {"Content-Type": "application/json"}
        for path in (TXT2IMG, "/sdapi/v1/options", "/sdapi/v1/png-info"):
            answer = await up.http.post(path, content=content, headers=headers)
            assert (answer.status_code, answer.json()["error"]) == (422, "RequestInvalid"), path
        assert a1111.bodies == []


async def test_a_route_that_only_one_has_is_found(start: Any, a1111: Any, second_a1111: Any) -> None:
    second_a1111.more = {"/controlnet/version": {"version": 3}, "/sdapi/v1/png-info": {"info": "second"}}
    async with start(a1111.address, second_a1111.address) as up:
        assert (await up.http.get("/controlnet/version")).json() == {"version": 3}
        assert (await up.http.post("/sdapi/v1/png-info", json={"image": ""})).json()["info"] == "second"
        assert (await up.http.get("/controlnet/settings")).status_code == 404


async def test_another_s_generation_there_is_not_interrupted(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        a1111.task = "task(somebody-at-its-own-page)"
        a1111.hold.clear()
        call = asyncio.create_task(up.http.post(TXT2IMG, json={"force_task_id": "mine"}))
        await a1111.drawing.wait()
        assert (await up.http.delete("/darkroom/v1/jobs/mine")).json() == {"cancelled": True}
        assert (await call).status_code == 499
        assert a1111.num_interrupts == 0


async def test_a_client_that_goes_away_takes_its_job_along(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        a1111.hold.clear()
        call = asyncio.create_task(up.http.post(TXT2IMG, json={"force_task_id": "left"}))
        await a1111.drawing.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        job = up.gateway.jobs.get("left")
        async for _ in up.gateway.jobs.follow(job):
            pass
        assert job.state == "CANCELLED"
        assert a1111.num_interrupts >= 1


async def test_a_grpc_client_that_goes_away_takes_its_job_along(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        a1111.hold.clear()
        call = GenerationServiceStub(up.grpc).Generate(pb.GenerateRequest(model="models/v1-5", request_id="left"))
        async for update in call:
            if update.progress.fraction == 0.5:
                break
        call.cancel()
        job = up.gateway.jobs.get("left")
        async for _ in up.gateway.jobs.follow(job):
            pass
        assert job.state == "CANCELLED"


async def test_progress_and_cancel_over_grpc(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        a1111.hold.clear()
        stub = GenerationServiceStub(up.grpc)
        call = stub.Generate(pb.GenerateRequest(model="models/v1-5", request_id="mine"))
        async for update in call:
            assert update.id == "mine"
            if update.progress.fraction == 0.5:
                break
        assert (update.progress.step, update.progress.num_steps) == (1, 2)
        progress = (await up.http.get("/sdapi/v1/progress")).json()
        assert (progress["progress"], progress["state"]["job"]) == (0.5, "mine")
        assert (await stub.CancelGeneration(pb.CancelGenerationRequest(id="mine"))).cancelled
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() == grpc.StatusCode.CANCELLED
        assert not (await stub.CancelGeneration(pb.CancelGenerationRequest(id="mine"))).cancelled
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await stub.CancelGeneration(pb.CancelGenerationRequest(id="never"))
        assert unknown.value.code() == grpc.StatusCode.NOT_FOUND
