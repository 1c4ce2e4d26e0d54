"""What one back end can be asked for by name: samplers, schedules, scripts; resolved to exactly the names that it knows.

Domain. A1111 draws with its first sampler or schedule when it does not know a name, and takes names only in their exact
spelling; so the gateway resolves aliases and letter case itself and refuses the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from webui_gateway.errors import RequestInvalid, UnknownSampler, UnknownScheduler, UnknownScript

AUTOMATIC: Final = "automatic"


@dataclass(frozen=True)
class Abilities:
    """Names of one back end in lower case, with what it calls them. scripts: by "txt2img" and "img2img", in lower case."""

    samplers: Mapping[str, str] = field(default_factory=dict)
    schedulers: Mapping[str, str] = field(default_factory=dict)
    scripts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    precisions: frozenset[str] = frozenset()

    def resolved(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body with sampler and schedule as this back end spells them. Raises UnknownSampler and its kin."""
        wanted = _text(body, "sampler_name") or _text(body, "sampler_index")
        schedule = _text(body, "scheduler")
        changed = {name: value for name, value in body.items() if name != "sampler_index"}
        if wanted:
            changed["sampler_name"], suffix = self._sampler(wanted)
            if suffix and schedule and schedule.lower() not in (AUTOMATIC, suffix.lower(), self._label(suffix).lower()):
                raise RequestInvalid(f"scheduler {schedule!r} contradicts the sampler {wanted!r}; name one of them")
            schedule = suffix or schedule
        if schedule:
            changed["scheduler"] = self._label(schedule)
        return changed

    def check_scripts(self, body: Mapping[str, Any], tab: str) -> None:
        """tab: "txt2img" or "img2img". Raises UnknownScript."""
        known = self.scripts.get(tab, frozenset())
        always_on = body.get("alwayson_scripts") or {}
        for name in (_text(body, "script_name"), *always_on):
            if name and name.lower() not in known:
                raise UnknownScript(name, known)

    def _sampler(self, wanted: str) -> tuple[str, str]:
        """The sampler's own name, and the schedule that "DPM++ 2M Karras" names beside it or ""."""
        key = wanted.strip().lower()
        if key in self.samplers:
            return self.samplers[key], ""
        for label in self.schedulers:
            stem = key.removesuffix(f" {label}")
            if stem != key and stem in self.samplers:
                return self.samplers[stem], label
        raise UnknownSampler(wanted, self.samplers.values())

    def _label(self, schedule: str) -> str:
        key = schedule.strip().lower()
        if key not in self.schedulers and key != AUTOMATIC:
            raise UnknownScheduler(schedule, self.schedulers.values())
        return self.schedulers.get(key, schedule)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise RequestInvalid(f"{name} must be text, found {value!r}")
    return value
