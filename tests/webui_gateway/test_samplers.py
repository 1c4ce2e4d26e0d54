"""Names as one back end spells them; A1111 would replace what it does not know."""

import re
from typing import Any

import pytest
from webui_gateway.errors import RequestInvalid, UnknownSampler, UnknownScheduler, UnknownScript
from webui_gateway.samplers import Abilities

ABLE = Abilities(
    samplers={"dpm++ 2m": "DPM++ 2M", "k_dpmpp_2m": "DPM++ 2M", "euler a": "Euler a"},
    schedulers={
        "automatic": "Automatic",
        "karras": "Karras",
        "sgm_uniform": "SGM Uniform",
        "sgm uniform": "SGM Uniform",
    },
    scripts={"txt2img": frozenset({"x/y/z plot", "controlnet"}), "img2img": frozenset()},
)
OLD = Abilities(samplers=ABLE.samplers)


@pytest.mark.parametrize(
    ("body", "sampler", "scheduler"),
    [
        ({"sampler_name": "Euler a"}, "Euler a", None),
        ({"sampler_name": "euler A"}, "Euler a", None),
        ({"sampler_index": "k_dpmpp_2m"}, "DPM++ 2M", None),
        ({"sampler_name": "DPM++ 2M Karras"}, "DPM++ 2M", "Karras"),
        ({"sampler_name": "DPM++ 2M SGM Uniform", "scheduler": "Automatic"}, "DPM++ 2M", "SGM Uniform"),
        ({"sampler_name": "DPM++ 2M", "scheduler": "sgm_uniform"}, "DPM++ 2M", "SGM Uniform"),
        ({"sampler_name": None, "scheduler": None}, None, None),
    ],
)
def test_names_become_those_of_the_back_end(body: dict[str, Any], sampler: str | None, scheduler: str | None) -> None:
    found = ABLE.resolved(body)
    assert (found.get("sampler_name"), found.get("scheduler")) == (sampler, scheduler)
    assert "sampler_index" not in found


@pytest.mark.parametrize("name", ["Euler b", "Euler", "DPM++ 2M Karas", "Karras"])
def test_an_unknown_sampler_is_refused(name: str) -> None:
    with pytest.raises(UnknownSampler, match=re.escape(f"{name!r}; did you mean")):
        ABLE.resolved({"sampler_name": name})


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(UnknownScheduler, match=r"'Karas'.*Karras"):
        ABLE.resolved({"scheduler": "Karas"})


def test_two_schedules_are_refused() -> None:
    with pytest.raises(RequestInvalid, match="contradicts"):
        ABLE.resolved({"sampler_name": "DPM++ 2M Karras", "scheduler": "SGM Uniform"})


def test_a_web_ui_from_before_schedules_would_ignore_one() -> None:
    assert OLD.resolved({"sampler_name": "Euler a", "scheduler": "Automatic"})["sampler_name"] == "Euler a"
    with pytest.raises(UnknownScheduler):
        OLD.resolved({"sampler_name": "Euler a", "scheduler": "Karras"})


def test_scripts_are_those_of_the_tab() -> None:
    ABLE.check_scripts({"script_name": "X/Y/Z plot", "alwayson_scripts": {"ControlNet": {}}}, "txt2img")
    with pytest.raises(UnknownScript, match="'X/Y/Z plot'"):
        ABLE.check_scripts({"script_name": "X/Y/Z plot"}, "img2img")
    with pytest.raises(UnknownScript, match="'reactor'"):
        ABLE.check_scripts({"alwayson_scripts": {"reactor": {}}}, "txt2img")


@pytest.mark.parametrize("field", ["sampler_name", "scheduler"])
def test_a_name_is_text(field: str) -> None:
    with pytest.raises(RequestInvalid, match=field):
        ABLE.resolved({field: 3})
