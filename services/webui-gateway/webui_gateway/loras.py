"""The LoRA registry: which LoRAs there are, which models each fits, and how each back end spells the tags of a prompt.

Domain. A1111 leaves out a tag that it does not know and draws without it, and merges what it can of a LoRA that was trained for
another model; so the gateway looks up every `<lora:NAME:WEIGHT>` itself and refuses what is unknown or does not fit.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from artifacts.checkpoints import Manifest

from webui_gateway.architectures import Width
from webui_gateway.errors import LoraMismatch, LoraUnavailable, RequestInvalid, UnknownLora
from webui_gateway.models import Model

KIND: Final = "lora"
"""The kind of such a checkpoint in its manifest."""
# `lyco` is another word of A1111 for the same.
_TAG: Final = re.compile(r"<(?P<kind>lora|lyco):(?P<name>[^:<>]*)(?P<weights>[^<>]*)>", re.IGNORECASE)
_PROMPTS: Final = ("prompt", "hr_prompt")
_NEGATIVE_PROMPTS: Final = ("negative_prompt", "hr_negative_prompt")
# What training scripts write into a file's `ss_base_model_version` and `modelspec.architecture`, by how it begins.
_FAMILIES: Final = {
    "sd_v1": "sd15",
    "sd_v2": "sd21",
    "sdxl": "sdxl",
    "stable-diffusion-v1": "sd15",
    "stable-diffusion-v2": "sd21",
    "stable-diffusion-xl": "sdxl",
    "flux": "flux",
}


@dataclass(frozen=True)
class LoraLine:
    """One line of a back end's loras. family: as its metadata tell, else ""."""

    name: str
    alias: str = ""
    family: str = ""


@dataclass(frozen=True)
class Lora:
    """A LoRA. family: "sd15", "sd21", ..., "" if unknown. width: of the model that it was trained on, None if unknown.

    lines: what each back end that has it says of it, by URL.
    """

    name: str
    family: str = ""
    base_model: str = ""
    width: Width | None = None
    title: str = ""
    lines: Mapping[str, LoraLine] = field(default_factory=dict)

    @property
    def aliases(self) -> frozenset[str]:
        """Every string that means this LoRA, in lower case."""
        names = {self.name, self.title, f"checkpoints/{self.name}", *(line.alias for line in self.lines.values())}
        return frozenset(name.lower() for name in names if name)


class LoraRegistry:
    """All LoRAs that are known at the moment."""

    def __init__(self) -> None:
        self._loras: dict[str, Lora] = {}

    def refresh(
        self,
        lines: Mapping[str, Sequence[LoraLine]],
        manifests: Iterable[Manifest],
        width_of: Callable[[str], Width | None],
    ) -> None:
        """Rebuild the table. lines: by URL of the back end. width_of: the width of a base model by its name."""
        published = {manifest.id: manifest for manifest in manifests if manifest.kind == KIND}
        where: dict[str, dict[str, LoraLine]] = {}
        for url, own in lines.items():
            for line in own:
                where.setdefault(line.name, {})[url] = line
        self._loras = {
            name: _entry(name, published.get(name), where.get(name, {}), width_of)
            for name in sorted({*published, *where})
        }

    def all(self) -> list[Lora]:
        """Every LoRA in order of name."""
        return list(self._loras.values())

    def find(self, name: str) -> Lora:
        """The LoRA of a name or alias. Raises UnknownLora with the nearest names."""
        wanted = name.strip().lower()
        for lora in self._loras.values():
            if wanted == lora.name.lower():
                return lora
        for lora in self._loras.values():
            if wanted in lora.aliases:
                return lora
        raise UnknownLora(name.strip(), self._loras)

    def lacks(self, body: Mapping[str, Any]) -> bool:
        """Whether the body names a LoRA that no back end is known to have."""
        if body.get("disable_extra_networks"):
            return False
        at_hand = {alias for lora in self._loras.values() if lora.lines for alias in lora.aliases}
        tags = (match for name in _PROMPTS for match in _TAG.finditer(_prompt(body, name)))
        return any(match["name"].strip().lower() not in at_hand for match in tags)

    def addressed(self, body: Mapping[str, Any], model: Model, url: str) -> dict[str, Any]:
        """The body with the tags of its prompts as the back end at url spells them.

        Raises RequestInvalid, UnknownLora, LoraMismatch, LoraUnavailable.
        """
        if body.get("disable_extra_networks"):
            return dict(body)
        for name in _NEGATIVE_PROMPTS:
            if tag := _TAG.search(_prompt(body, name)):
                raise RequestInvalid(f"{name}: found {tag.group()!r}, but LoRAs work in the prompt only; put it there")

        def spelled(match: re.Match[str]) -> str:
            line = self._fitting(match["name"], model, url)
            own = match["name"] if match["name"] in (line.name, line.alias) else line.name
            return f"<{match['kind'].lower()}:{own}{match['weights']}>"

        changed = {name: _TAG.sub(spelled, _prompt(body, name)) for name in _PROMPTS if _prompt(body, name)}
        return {**body, **changed}

    def _fitting(self, name: str, model: Model, url: str) -> LoraLine:
        lora = self.find(name)
        if why := _difference(lora, model):
            raise LoraMismatch(model.name, lora.name, why)
        if url not in lora.lines:
            raise LoraUnavailable(model.name, lora.name)
        return lora.lines[url]


def family_of(metadata: Mapping[str, Any]) -> str:
    """The family of models that a file's metadata name, "" if they name none."""
    for key in ("ss_base_model_version", "modelspec.architecture"):
        said = str(metadata.get(key) or "")
        for beginning, family in _FAMILIES.items():
            if said.startswith(beginning):
                return family
    return ""


def _entry(
    name: str, manifest: Manifest | None, lines: Mapping[str, LoraLine], width_of: Callable[[str], Width | None]
) -> Lora:
    if manifest is None:
        family = next((line.family for line in lines.values() if line.family), "")
        return Lora(name, family, lines=lines)
    base = manifest.base_model
    return Lora(name, _family(manifest.architecture), base, width_of(base), manifest.title, lines)


def _family(architecture: str) -> str:
    """sd21-512 and sd21-768, flux-dev and flux-schnell have the same layers."""
    return architecture.split("-")[0]


def _difference(lora: Lora, model: Model) -> str:
    """Why it does not fit, "" if it does. Unless both are known nothing is refused: the back end will say."""
    if not model.verified:
        return ""
    architecture = model.spec.architecture
    base = lora.base_model and f", trained on {lora.base_model}"
    if lora.family and lora.family != _family(architecture):
        return f"it is made for {lora.family}{base}, the model is {architecture}"
    ours, theirs = model.spec.width, lora.width
    if ours is not None and theirs is not None and ours != theirs:
        return (
            f"it is made for {lora.family} with channels {theirs.channels} and cross-attention "
            f"{theirs.cross_attention_dim}{base}, the model has {ours.channels} and {ours.cross_attention_dim}"
        )
    return ""


def _prompt(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return value if isinstance(value, str) else ""
