"""Pictures: seeds, batches, sizes, models by request, infotexts."""

from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest
from webui_engine.samplers import SAMPLERS

from .conftest import Running, as_base64, decoded, drawing, open_base64, refused

Draw = Callable[..., dict[str, Any]]


def largest_difference(one: Any, other: Any) -> int:
    """In grey levels."""
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.fixture(scope="module")
def batch(running: Running) -> dict[str, Any]:
    """Three pictures: two in the first batch, one more of the second."""
    with httpx.Client(base_url=running.url, auth=("a", running.engine.config.server.token), timeout=240) as client:
        body = {
            "prompt": "a red circle",
            "steps": 3,
            "seed": 41,
            "batch_size": 2,
            "n_iter": 2,
            "sampler_name": "Euler a",
        }
        return decoded(client.post("/sdapi/v1/txt2img", json=body))


def test_a_picture_has_the_models_own_size(txt2img: Draw, running: Running) -> None:
    reply = txt2img()
    assert reply["images"][0].shape == (64, 64, 3)
    assert (reply["info"]["width"], reply["info"]["height"]) == (64, 64)


def test_width_and_height_are_kept(txt2img: Draw) -> None:
    assert txt2img(width=96, height=64)["images"][0].shape == (64, 96, 3)


def test_seeds_count_up(batch: dict[str, Any]) -> None:
    assert batch["info"]["all_seeds"] == [41, 42, 43, 44]
    assert len(batch["images"]) == 4
    assert ["Seed: 43" in text for text in batch["info"]["infotexts"]] == [False, False, True, False]


def test_pictures_of_a_batch_differ(batch: dict[str, Any]) -> None:
    assert largest_difference(batch["images"][0], batch["images"][1]) > 3


@pytest.mark.parametrize("number", [1, 2])
def test_a_picture_is_the_same_alone_as_in_a_batch(txt2img: Draw, batch: dict[str, Any], number: int) -> None:
    alone = txt2img(steps=3, seed=41 + number, sampler_name="Euler a")["images"][0]
    assert largest_difference(alone, batch["images"][number]) <= 1  # float sums of another batch size may round apart


def test_the_same_request_gives_the_same_file(txt2img: Draw) -> None:
    assert txt2img()["png"] == txt2img()["png"]


def test_a_random_seed_is_reported_and_repeats(txt2img: Draw) -> None:
    first = txt2img(seed=-1)
    assert 0 <= first["info"]["seed"] < 2**32
    assert txt2img(seed=first["info"]["seed"])["images"][0].tolist() == first["images"][0].tolist()


def test_variations_lead_from_one_seed_to_the_other(txt2img: Draw) -> None:
    own, other = txt2img(seed=1)["images"][0], txt2img(seed=2)["images"][0]
    full = txt2img(seed=1, subseed=2, subseed_strength=1.0)
    assert largest_difference(full["images"][0], other) <= 1
    half = txt2img(seed=1, subseed=2, subseed_strength=0.5, batch_size=2)
    assert half["info"]["all_seeds"] == [1, 1]
    assert half["info"]["all_subseeds"] == [2, 3]
    assert largest_difference(half["images"][0], own) > 1
    assert "Variation seed: 2, Variation seed strength: 0.5" in half["info"]["infotexts"][0]


def test_the_prompt_and_its_weights_change_the_picture(txt2img: Draw) -> None:
    pictures = [txt2img(prompt=text)["images"][0] for text in ("a red circle", "a (red:1.5) circle", "a blue circle")]
    assert largest_difference(pictures[0], pictures[1]) > 0
    assert largest_difference(pictures[0], pictures[2]) > 0


def test_a_prompt_may_be_longer_than_the_window(txt2img: Draw) -> None:
    long = "a red circle on grass, " * 12
    assert largest_difference(txt2img(prompt=long)["images"][0], txt2img()["images"][0]) > 0
    assert largest_difference(txt2img(prompt="a red BREAK circle")["images"][0], txt2img()["images"][0]) > 0


def test_without_guidance_the_negative_prompt_means_nothing(txt2img: Draw) -> None:
    plain = txt2img(cfg_scale=1)["images"][0]
    assert largest_difference(plain, txt2img(cfg_scale=1, negative_prompt="blue")["images"][0]) == 0
    assert largest_difference(txt2img(cfg_scale=7)["images"][0], plain) > 0


def test_clip_skip_is_an_option_of_the_request(txt2img: Draw) -> None:
    skipped = txt2img(override_settings={"CLIP_stop_at_last_layers": 2})
    assert "Clip skip: 2" in skipped["info"]["infotexts"][0]
    assert largest_difference(skipped["images"][0], txt2img()["images"][0]) > 0


@pytest.mark.parametrize("name", [sampler.name for sampler in SAMPLERS])
def test_every_listed_sampler_draws(txt2img: Draw, name: str) -> None:
    reply = txt2img(sampler_name=name, steps=2)
    assert f"Sampler: {name}," in reply["info"]["infotexts"][0]
    assert reply["images"][0].std() > 1


def test_the_file_says_what_info_says(client: httpx.Client, txt2img: Draw) -> None:
    reply = txt2img(prompt='a "red", (circle:1.2)', negative_prompt="blue: no", sampler_name="DPM++ 2M", steps=2)
    text = reply["info"]["infotexts"][0]
    assert open_base64(reply["png"][0]).text["parameters"] == text
    found = client.post("/sdapi/v1/png-info", json={"image": reply["png"][0]}).json()
    assert found["info"] == text
    parameters = found["parameters"]
    assert parameters["Prompt"] == 'a "red", (circle:1.2)'
    assert parameters["Negative prompt"] == "blue: no"
    assert (parameters["Sampler"], parameters["Schedule type"]) == ("DPM++ 2M", "Karras")
    assert (parameters["Size-1"], parameters["Size-2"], parameters["Seed"]) == ("64", "64", "1")
    title = client.get("/sdapi/v1/options").json()["sd_model_checkpoint"]
    assert f"{parameters['Model']} [{parameters['Model hash']}]" == title


def test_pictures_can_be_left_out(txt2img: Draw) -> None:
    assert txt2img(send_images=False)["images"] == []


def test_unknown_fields_are_ignored(txt2img: Draw) -> None:
    assert len(txt2img(no_such_field=1, alwayson_scripts={})["images"]) == 1


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"sampler_name": "Eular"}, ("sampler 'Eular' not found", "Euler")),
        ({"scheduler": "karas"}, ("scheduler 'karas' not found", "Karras")),
        ({"sampler_name": "PLMS", "scheduler": "karras"}, ("cannot do 'Karras'",)),
        ({"override_settings": {"sd_model_checkpoint": "sd15-tini"}}, ("'sd15-tini' not found", "sd15-tiny [")),
        ({"override_settings": {"no_such_option": 1}}, ("no_such_option",)),
        ({"override_settings": {"sd_vae": "other.pt"}}, ("sd_vae", "Automatic")),
        ({"script_name": "X/Y/Z plot"}, ("script 'X/Y/Z plot' not found",)),
        ({"alwayson_scripts": {"ADetailer": {"args": [1]}}}, ("'ADetailer' not found", "controlnet")),
        ({"width": 60}, ("width: found 60", "multiple of 8", "64")),
        ({"width": 2048, "height": 64}, ("2048x64", "sd15-tiny [", "64 to 256 px")),
        ({"width": 8}, ("8x64", "sd15-tiny [")),
        ({"steps": 0}, ("steps",)),
        ({"sampler_name": "LCM", "steps": 51}, ("steps: found 51", "1 to 50")),
        ({"cfg_scale": "NaN"}, ("cfg_scale",)),
        ({"batch_size": 9, "n_iter": 9}, ("expected at most 64 pictures",)),
        ({"seed": "many"}, ("seed",)),
        ({"enable_hr": True}, ("enable_hr", "does not support")),
        ({"restore_faces": True}, ("restore_faces",)),
        ({"tiling": True}, ("tiling",)),
        ({"styles": ["noir"]}, ("styles",)),
        ({"refiner_checkpoint": "x"}, ("refiner_checkpoint",)),
        ({"save_images": True}, ("save_images",)),
        ({"s_churn": 3.0}, ("s_churn",)),
        ({"sampler_name": "Euler a", "eta": 0.5}, ("eta", "Euler a")),
        ({"prompt": "<hypernet:x:1>"}, ("<hypernet:x:1>",)),
        ({"negative_prompt": "<lora:x:1>"}, ("negative_prompt", "<lora:x:1>")),
        ({"negative_prompt": "[a|b]"}, ("negative_prompt", "[a|b]")),
        ({"override_settings": {"CLIP_stop_at_last_layers": 12}}, ("has 2 layers",)),
    ],
)
def test_nothing_is_silently_replaced(client: httpx.Client, fields: dict[str, Any], parts: tuple[str, ...]) -> None:
    refused(client.post("/sdapi/v1/txt2img", json={"prompt": "a", "steps": 1, **fields}), 422, *parts)


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ('{"prompt": "\\ud800"}', "surrogates not allowed"),
        ('{"override_settings": {"\\ud800": 1}}', "surrogates not allowed"),
        ('{"cfg_scale": NaN}', "cfg_scale"),
    ],
)
def test_what_no_answer_could_say_is_refused(client: httpx.Client, content: str, part: str) -> None:
    refused(client.post("/sdapi/v1/txt2img", content=content, headers={"content-type": "application/json"}), 422, part)


def test_broken_json_is_the_clients_mistake(client: httpx.Client) -> None:
    response = client.post("/sdapi/v1/txt2img", content=b'{"prompt": ', headers={"content-type": "application/json"})
    refused(response, 422)


def test_a_body_over_the_limit_is_refused(client: httpx.Client, running: Running) -> None:
    limit = running.engine.config.server.max_message_bytes
    refused(client.post("/sdapi/v1/txt2img", content=b"x" * (limit + 1)), 413, str(limit))
    chunks = (b"x" * 65536 for _ in range(limit // 65536 + 2))  # sent without its length
    refused(client.post("/sdapi/v1/txt2img", content=chunks), 413, str(limit))


class TestImg2Img:
    """img2img."""

    def test_strength_decides_how_much_stays(self, client: httpx.Client) -> None:
        start = drawing()

        def draw(strength: float) -> Any:
            body = {
                "prompt": "a",
                "init_images": [as_base64(start)],
                "steps": 4,
                "seed": 1,
                "denoising_strength": strength,
            }
            return decoded(client.post("/sdapi/v1/img2img", json=body))["images"][0]

        reply = [draw(strength) for strength in (0.0, 0.5, 1.0)]
        assert largest_difference(reply[0], reply[1]) > 0
        assert largest_difference(reply[1], reply[2]) > 0

    def test_any_picture_is_taken(self, client: httpx.Client) -> None:
        for text in (
            as_base64(drawing(50).convert("CMYK"), "JPEG"),
            as_base64(drawing(90), "WEBP"),
            f"data:image/png;base64,{as_base64(drawing().convert('I;16'))}",
        ):
            body = {"init_images": [text], "steps": 1, "resize_mode": 1}
            assert decoded(client.post("/sdapi/v1/img2img", json=body))["images"][0].shape == (64, 64, 3)

    def test_the_echo_has_pictures_only_if_wanted(self, client: httpx.Client) -> None:
        body = {"init_images": [as_base64(drawing())], "steps": 1}
        assert decoded(client.post("/sdapi/v1/img2img", json=body))["parameters"]["init_images"] is None
        body["include_init_images"] = True
        assert decoded(client.post("/sdapi/v1/img2img", json=body))["parameters"]["init_images"] == body["init_images"]

    def test_without_picture_it_is_404(self, client: httpx.Client) -> None:
        refused(client.post("/sdapi/v1/img2img", json={"prompt": "a"}), 404, "Init image not found")
        refused(client.post("/sdapi/v1/img2img", json={"init_images": []}), 404, "Init image not found")

    @pytest.mark.parametrize(
        ("fields", "parts"),
        [
            ({"mask": "abc"}, ("mask",)),
            ({"resize_mode": 3}, ("resize_mode",)),
            ({"init_images": ["no picture"]}, ("init_images[0]", "Invalid encoded image")),
            ({"init_images": ["aGVsbG8gdGhlcmU="]}, ("init_images[0]", "not a picture")),
            ({"denoising_strength": 1.5}, ("denoising_strength",)),
        ],
    )
    def test_bad_input(self, client: httpx.Client, fields: dict[str, Any], parts: tuple[str, ...]) -> None:
        body = {"init_images": [as_base64(drawing())], "steps": 1, **fields}
        refused(client.post("/sdapi/v1/img2img", json=body), 422, *parts)

    def test_a_picture_over_the_limit(self, client: httpx.Client) -> None:
        body = {"init_images": [as_base64(drawing().resize((2100, 2000)))], "steps": 1}
        refused(client.post("/sdapi/v1/img2img", json=body), 422, "2100x2000", "at most 4194304")
