"""Names of samplers and schedules."""

import pytest
from webui_engine.errors import RequestInvalid, UnknownName
from webui_engine.samplers import SAMPLERS, choose


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        (None, None, ("Euler", "automatic")),
        ("euler A", "Automatic", ("Euler a", "automatic")),
        ("k_dpmpp_2m", None, ("DPM++ 2M", "karras")),
        ("DPM++ 2M Karras", None, ("DPM++ 2M", "karras")),
        ("DPM++ 2M Exponential", "automatic", ("DPM++ 2M", "exponential")),
        ("k_dpmpp_2m_ka", None, ("DPM++ 2M", "karras")),
        ("DPM++ 2M SDE", None, ("DPM++ 2M SDE", "exponential")),
        ("Heun", "SGM Uniform", ("Heun", "sgm_uniform")),
        ("Euler", "sgm_uniform", ("Euler", "sgm_uniform")),
    ],
)
def test_names_as_a1111_reads_them(sampler: str | None, schedule: str | None, expected: tuple[str, str]) -> None:
    choice = choose(sampler, schedule)
    assert (choice.sampler.name, choice.schedule.name) == expected


def test_an_unknown_sampler_names_the_closest() -> None:
    with pytest.raises(UnknownName, match=r"'Eular a' not found; closest: Euler a"):
        choose("Eular a", None)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(UnknownName, match="polyexponential"):
        choose("Euler", "polyexponential")


def test_a_pair_that_cannot_be_names_what_can() -> None:
    with pytest.raises(RequestInvalid, match="'PLMS' cannot do 'Karras'; it can do Automatic"):
        choose("PLMS", "karras")


def test_two_schedules_at_once_are_refused() -> None:
    with pytest.raises(RequestInvalid, match="'Exponential'"):
        choose("DPM++ 2M Karras", "exponential")


def test_every_alias_is_unique() -> None:
    names = [name.lower() for sampler in SAMPLERS for name in (sampler.name, *sampler.aliases)]
    unique = {name for sampler in SAMPLERS for name in {n.lower() for n in (sampler.name, *sampler.aliases)}}
    assert len(unique) == sum(len({n.lower() for n in (s.name, *s.aliases)}) for s in SAMPLERS), names
