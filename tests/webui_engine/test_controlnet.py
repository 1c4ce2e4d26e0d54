"""ControlNet units and the API of sd-webui-controlnet."""

from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from .conftest import as_base64, decoded, drawing, open_base64, refused

STRIP = as_base64(Image.new("RGB", (1, 60_000)))
"""Within the limit, but not once its short side has hundreds of pixels."""


@pytest.fixture
def title(client: httpx.Client) -> str:
    """The title of the control net that fits."""
    (found,) = [t for t in client.get("/controlnet/model_list").json()["model_list"] if t.startswith("canny-tiny [")]
    return str(found)


def body(unit: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"prompt": "a", "steps": 2, "seed": 1, "alwayson_scripts": {"ControlNet": {"args": [unit]}}, **fields}


def test_a_canny_unit_guides_and_its_map_follows(client: httpx.Client, title: str) -> None:
    unit = {"image": as_base64(drawing()), "module": "canny", "model": title, "weight": 1.5}
    reply = decoded(client.post("/sdapi/v1/txt2img", json=body(unit)))
    picture, edges = reply["images"]
    assert set(np.unique(edges)) == {0, 255}
    assert edges[14:18, 20:44].max() == 255  # the upper side of the square
    assert edges[32, 32].max() == 0
    plain = decoded(client.post("/sdapi/v1/txt2img", json={"prompt": "a", "steps": 2, "seed": 1}))["images"][0]
    assert np.abs(picture.astype(int) - plain.astype(int)).max() > 1
    assert f'ControlNet 0: "Module: canny, Model: {title}, Weight: 1.5' in reply["info"]["infotexts"][0]
    assert "ControlNet 0" in reply["info"]["extra_generation_params"]


def test_a_unit_can_be_off_weak_or_late(client: httpx.Client, title: str) -> None:
    unit = {"image": as_base64(drawing()), "module": "canny", "model": title, "save_detected_map": False}
    plain = decoded(client.post("/sdapi/v1/txt2img", json=body({"enabled": False})))["images"]
    assert len(plain) == 1
    for change in ({"enabled": False}, {"weight": 0}, {"guidance_start": 0.9}):
        found = decoded(client.post("/sdapi/v1/txt2img", json=body({**unit, **change})))["images"]
        assert len(found) == 1
        assert (found[0] == plain[0]).all(), change


def test_img2img_lends_its_picture(client: httpx.Client, title: str) -> None:
    request = body({"module": "canny", "model": title}, init_images=[as_base64(drawing(100))])
    assert len(decoded(client.post("/sdapi/v1/img2img", json=request))["images"]) == 2


def test_module_none_takes_the_picture_as_it_is(client: httpx.Client, title: str) -> None:
    reply = decoded(client.post("/sdapi/v1/txt2img", json=body({"input_image": as_base64(drawing()), "model": title})))
    assert (reply["images"][1] == np.asarray(drawing())).all()


@pytest.mark.parametrize(
    ("unit", "parts"),
    [
        ({"model": "canny-huge"}, ("'canny-huge' not found", "canny-tiny [")),
        ({"model": "narrow-net"}, ("narrow-net [", "does not fit model 'sd15-tiny [", "cross_attention_dim")),
        ({"model": "None"}, ("no control net given",)),
        ({"module": "openpose"}, ("preprocessor 'openpose' not found", "canny")),
        ({"image": None}, ("has no picture",)),
        ({"image": "?"}, ("Invalid encoded image",)),
        ({"weight": 3}, ("weight",)),
        ({"guidance_start": 0.8, "guidance_end": 0.2}, ("guidance_start", "0.8 is after guidance_end 0.2")),
        ({"control_mode": "My prompt is more important"}, ("control_mode",)),
        ({"resize_mode": "Resize and Fill"}, ("resize_mode",)),
        ({"mask": "abc"}, ("mask",)),
        ({"threshold_b": 300}, ("300", "at most 255")),
        ({"image": STRIP, "processor_res": 512}, ("args[0].image", "1x60000", "on the short side")),
    ],
)
def test_bad_units(client: httpx.Client, unit: dict[str, Any], parts: tuple[str, ...]) -> None:
    whole = {"image": as_base64(drawing()), "module": "canny", "model": "canny-tiny", **unit}
    refused(client.post("/sdapi/v1/txt2img", json=body(whole)), 422, *parts)


def test_lists(client: httpx.Client, title: str) -> None:
    assert client.get("/controlnet/version").json() == {"version": 3}
    assert client.get("/controlnet/model_list").json()["model_list"][0] == "None"
    modules = client.get("/controlnet/module_list").json()
    assert modules["module_list"] == ["none", "canny"]
    assert [s["value"] for s in modules["module_detail"]["canny"]["sliders"]] == [512, 100, 200]
    types = client.get("/controlnet/control_types").json()["control_types"]
    assert types["Canny"]["default_model"] == title
    assert client.get("/controlnet/settings").json() == {"control_net_unit_count": 3}


def test_detect_finds_edges(client: httpx.Client) -> None:
    request = {
        "controlnet_module": "canny",
        "controlnet_input_images": [as_base64(drawing()), as_base64(drawing(128), "WEBP")],
        "controlnet_processor_res": 64,
    }
    reply = client.post("/controlnet/detect", json=request).json()
    assert reply["info"] == "Success"
    for text in reply["images"]:
        edges = np.asarray(open_base64(text))
        assert edges.shape == (64, 64, 3)
        assert 0.01 < (edges > 0).mean() < 0.2


@pytest.mark.parametrize(
    ("request_body", "part"),
    [
        ({"controlnet_module": "canny"}, "No image selected"),
        ({"controlnet_module": "hed", "controlnet_input_images": ["x"]}, "'hed' not found"),
        ({"controlnet_module": "canny", "controlnet_input_images": ["x"]}, "controlnet_input_images[0]"),
        ({"controlnet_module": "canny", "controlnet_input_images": [STRIP]}, "1x60000"),
    ],
)
def test_detect_refuses(client: httpx.Client, request_body: dict[str, Any], part: str) -> None:
    refused(client.post("/controlnet/detect", json=request_body), 422, part)
