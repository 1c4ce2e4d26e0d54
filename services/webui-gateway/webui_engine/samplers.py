"""Samplers and schedules by their A1111 names, and which diffusers scheduler each of them is.

Tables of names only: `pipelines.py` builds the schedulers. A pair that is not in the table is refused; nothing is replaced.
Schedules in A1111's terms: `uniform` and `normal` space the steps evenly from the first to the last training step
(diffusers "linspace"), `sgm_uniform` and `simple` leave out the last point ("trailing"), `ddim` is "leading" with offset 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from webui_engine.errors import RequestInvalid, UnknownName

_Arguments = Mapping[str, Any]

_KARRAS: Final = {"use_karras_sigmas": True}
_EXPONENTIAL: Final = {"use_exponential_sigmas": True}
_BETA: Final = {"use_beta_sigmas": True}
_LINSPACE: Final = {"timestep_spacing": "linspace"}
_TRAILING: Final = {"timestep_spacing": "trailing"}
_LEADING: Final = {"timestep_spacing": "leading", "steps_offset": 1}

_SPACED: Final[Mapping[str, _Arguments]] = {
    "uniform": _LINSPACE,
    "normal": _LINSPACE,
    "sgm_uniform": _TRAILING,
    "simple": _TRAILING,
    "ddim": _LEADING,
}
_SIGMAS: Final[Mapping[str, _Arguments]] = {"karras": _KARRAS, "exponential": _EXPONENTIAL, "beta": _BETA}
# The multistep solvers of diffusers leave out the last point in "linspace" already.
_SOLVER: Final[Mapping[str, _Arguments]] = {**_SIGMAS, "sgm_uniform": _LINSPACE, "simple": _TRAILING, "ddim": _LEADING}


@dataclass(frozen=True)
class Schedule:
    """How the noise levels are spaced; `name` and `label` as in GET /sdapi/v1/schedulers."""

    name: str
    label: str
    default_rho: float = -1.0


@dataclass(frozen=True)
class Sampler:
    """One A1111 sampler: the diffusers class, its arguments, and arguments for every schedule it can do.

    automatic: the schedule that A1111 takes for "Automatic"; "" means the class's own, which is listed under "automatic".
    eta: what `eta` means to it: None nothing, else the value that A1111 uses when the request has none.
    fixed_eta: the sampler is stochastic and diffusers cannot change by how much.
    """

    name: str
    aliases: tuple[str, ...]
    scheduler_class: str
    schedules: Mapping[str, _Arguments]
    arguments: _Arguments = field(default_factory=dict)
    automatic: str = ""
    eta: float | None = None
    fixed_eta: bool = False
    max_steps: int = 1000
    min_steps: int = 1


SCHEDULES: Final = (
    Schedule("automatic", "Automatic"),
    Schedule("uniform", "Uniform"),
    Schedule("karras", "Karras", 7.0),
    Schedule("exponential", "Exponential"),
    Schedule("sgm_uniform", "SGM Uniform"),
    Schedule("simple", "Simple"),
    Schedule("normal", "Normal"),
    Schedule("ddim", "DDIM"),
    Schedule("beta", "Beta"),
)

_MULTISTEP: Final = "DPMSolverMultistepScheduler"
_SINGLESTEP: Final = "DPMSolverSinglestepScheduler"
_SDE: Final = {"algorithm_type": "sde-dpmsolver++"}

SAMPLERS: Final = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m",), _MULTISTEP, _SOLVER, automatic="karras"),
    Sampler(
        "DPM++ SDE",
        ("k_dpmpp_sde",),
        _SINGLESTEP,
        _SIGMAS,
        {**_SDE, "lower_order_final": True},
        automatic="karras",
        fixed_eta=True,
    ),
    Sampler("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), _MULTISTEP, _SOLVER, _SDE, automatic="exponential", fixed_eta=True),
    Sampler(
        "DPM++ 3M SDE",
        ("k_dpmpp_3m_sde",),
        _MULTISTEP,
        _SOLVER,
        {**_SDE, "solver_order": 3},
        automatic="exponential",
        fixed_eta=True,
    ),
    Sampler(
        "Euler a",
        ("k_euler_a", "k_euler_ancestral"),
        "EulerAncestralDiscreteScheduler",
        {"automatic": _LINSPACE, **_SPACED},
        fixed_eta=True,
    ),
    Sampler("Euler", ("k_euler",), "EulerDiscreteScheduler", {"automatic": _LINSPACE, **_SPACED, **_SIGMAS}),
    Sampler("LMS", ("k_lms",), "LMSDiscreteScheduler", {"automatic": _LINSPACE, **_SPACED, **_SIGMAS}),
    Sampler("Heun", ("k_heun",), "HeunDiscreteScheduler", {"automatic": _LINSPACE, **_SPACED, **_SIGMAS}),
    Sampler("DPM2", ("k_dpm_2",), "KDPM2DiscreteScheduler", {**_SPACED, **_SIGMAS}, automatic="karras"),
    Sampler(
        "DPM2 a",
        ("k_dpm_2_a",),
        "KDPM2AncestralDiscreteScheduler",
        {**_SPACED, **_SIGMAS},
        automatic="karras",
        fixed_eta=True,
    ),
    Sampler(
        "DDIM",
        ("ddim",),
        "DDIMScheduler",
        # With "linspace" diffusers' DDIM steps by another distance than it lists, and ends with noise in the picture.
        {"automatic": _LEADING, "ddim": _LEADING, "sgm_uniform": _TRAILING, "simple": _TRAILING},
        {"clip_sample": False, "set_alpha_to_one": False},
        eta=0.0,
    ),
    Sampler("UniPC", ("unipc",), "UniPCMultistepScheduler", {"automatic": _LINSPACE, **_SOLVER}),
    Sampler("PLMS", ("plms",), "PNDMScheduler", {"automatic": _LEADING}, {"skip_prk_steps": True}),
    # The distilled schedule has 50 points, so there cannot be more steps.
    Sampler("LCM", ("k_lcm",), "LCMScheduler", {"automatic": {}}, {"clip_sample": False}, fixed_eta=True, max_steps=50),
)

DEFAULT_SAMPLER: Final = "Euler"
"""What A1111's API takes when a request names none (`sampler_index`)."""

_SAMPLER_NAMES: Final = {name.lower(): s for s in SAMPLERS for name in (s.name, *s.aliases)}
_SCHEDULE_NAMES: Final = {name.lower(): s for s in SCHEDULES for name in (s.name, s.label)}


@dataclass(frozen=True)
class Choice:
    """A sampler with a schedule that it can do. `schedule` is what the infotext calls "Schedule type"."""

    sampler: Sampler
    schedule: Schedule

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the diffusers scheduler beyond the model's own noise levels."""
        return {**self.sampler.arguments, **self.sampler.schedules[self.schedule.name]}


def choose(sampler_name: str | None, schedule_name: str | None) -> Choice:
    """Resolve names as A1111 does: aliases, any case, and a schedule at the end of the sampler ("DPM++ 2M Karras").

    Raises UnknownName, and RequestInvalid for a schedule that the sampler cannot do.
    """
    sampler, suffix = _find_sampler(sampler_name or DEFAULT_SAMPLER)
    named = _find_schedule(schedule_name) if schedule_name else SCHEDULES[0]
    if suffix is not None and named.name not in ("automatic", suffix.name):
        raise RequestInvalid(
            "scheduler", f"found {named.label!r}, but the sampler {sampler_name!r} says {suffix.label!r}"
        )
    schedule = suffix or named
    if schedule.name == "automatic" and sampler.automatic:
        schedule = _SCHEDULE_NAMES[sampler.automatic]
    if schedule.name not in sampler.schedules:
        able = ", ".join(["Automatic", *(s.label for s in SCHEDULES[1:] if s.name in sampler.schedules)])
        raise RequestInvalid("scheduler", f"sampler {sampler.name!r} cannot do {schedule.label!r}; it can do {able}")
    return Choice(sampler, schedule)


def _find_sampler(name: str) -> tuple[Sampler, Schedule | None]:
    lowered = name.strip().lower()
    if sampler := _SAMPLER_NAMES.get(lowered):
        return sampler, None
    for ending, schedule in _SCHEDULE_NAMES.items():
        for separator in (" ", "_"):
            stem = lowered.removesuffix(f"{separator}{ending}")
            if stem != lowered and (sampler := _SAMPLER_NAMES.get(stem)):
                return sampler, schedule
    # k-diffusion's short names carry the Karras schedule as "_ka".
    if sampler := _SAMPLER_NAMES.get(lowered.removesuffix("_ka")):
        return sampler, _SCHEDULE_NAMES["karras"]
    raise UnknownName("sampler_name", "sampler", name, (sampler.name for sampler in SAMPLERS))


def _find_schedule(name: str) -> Schedule:
    schedule = _SCHEDULE_NAMES.get(name.strip().lower())
    if schedule is None:
        raise UnknownName("scheduler", "scheduler", name, (schedule.label for schedule in SCHEDULES))
    return schedule
