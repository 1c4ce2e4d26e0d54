"""The stages of a run: what trains, for how long and at which rate. Either stage may have no steps and is left out.

    text_encoder_only_first   first the text encoder alone: the UNet is truly frozen, gradients only pass through it;
                              then the UNet alone
    joint_then_discard        the notebook flow that people know as "train the text encoder first": first both together
                              at one rate, then that UNet is thrown away; the UNet alone from the base's weights
    joint_then_freeze         first both together, each at its own rate, then the UNet alone with the same optimizer and
                              the same schedule

In the first two modes the second stage has a fresh optimizer. The recipe's record in the manifest says which mode ran.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from dreambooth import schedules
from dreambooth.parts import Parts
from dreambooth.recipe import ONLY_FIRST, TEXT_ENCODER, THEN_DISCARD, THEN_FREEZE, UNET, Recipe, StageSettings


@dataclass(frozen=True)
class Rates:
    """The learning rates of one module in one stage. before: steps of its schedule in earlier stages. length: of all."""

    settings: StageSettings
    before: int
    length: int

    def at(self, step: int) -> float:
        """Learning rate of a step of the stage, from 1."""
        return schedules.rate(self.settings, self.before + step, self.length)


@dataclass(frozen=True)
class Stage:
    """One stage. rates: of each module that trains, by its name, in the optimizer's order.

    keeps_optimizer: it goes on with the optimizer of the stage before. discards_unet: at its end the UNet is again that
    of the base.
    """

    name: str
    num_steps: int
    rates: dict[str, Rates]
    keeps_optimizer: bool = False
    discards_unet: bool = False

    @property
    def trains_text_encoder(self) -> bool:
        """Whether text states change from step to step."""
        return TEXT_ENCODER in self.rates


def of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages with steps, in order."""
    first, second = recipe.text_encoder, recipe.unet
    text, unet = Rates(first, 0, first.steps), Rates(second, 0, second.steps)
    stages = {
        ONLY_FIRST: (Stage(TEXT_ENCODER, first.steps, {TEXT_ENCODER: text}), Stage(UNET, second.steps, {UNET: unet})),
        THEN_DISCARD: (
            Stage(TEXT_ENCODER, first.steps, {UNET: text, TEXT_ENCODER: text}, discards_unet=True),
            Stage(UNET, second.steps, {UNET: unet}),
        ),
        THEN_FREEZE: _then_freeze(recipe),
    }[recipe.stages]
    return tuple(stage for stage in stages if stage.num_steps > 0)


def with_changed(recipe: Recipe) -> Iterator[tuple[Stage, tuple[str, ...]]]:
    """Each stage with the modules that were changed by its end: what `StageState` keeps, and a resume point holds."""
    changed: tuple[str, ...] = ()
    for stage in of(recipe):
        changed = tuple(dict.fromkeys((*changed, *stage.rates)))
        yield stage, changed
        if stage.discards_unet:
            changed = tuple(name for name in changed if name != UNET)


def _then_freeze(recipe: Recipe) -> tuple[Stage, ...]:
    first, second = recipe.text_encoder, recipe.unet
    of_unet, length = (second if second.steps else first), first.steps + second.steps
    joint = {UNET: Rates(of_unet, 0, length), TEXT_ENCODER: Rates(first, 0, first.steps)}
    return (
        Stage(TEXT_ENCODER, first.steps, joint),
        Stage(UNET, second.steps, {UNET: Rates(second, first.steps, length)}, keeps_optimizer=first.steps > 0),
    )


def open_for_training(parts: Parts, stage: Stage) -> None:
    """Freeze everything except what the stage trains.

    All stays in evaluation mode. All that training mode would change is dropout: published models have none, and its
    draws would come from torch's own generator, not from `draws`.
    """
    for module in (parts.unet, parts.text_encoder, parts.vae):
        module.requires_grad_(False).eval()
    for name in stage.rates:
        for _, parameter in trainable(parts, name):
            parameter.requires_grad_(True)


def close(parts: Parts) -> None:
    """Freeze everything and drop the gradients."""
    for module in (parts.unet, parts.text_encoder):
        module.zero_grad(set_to_none=True)
        module.requires_grad_(False)


def trainable(parts: Parts, module: str) -> Iterator[tuple[str, nn.Parameter]]:
    """What training a module changes: its adapters where it has some, else all its weights."""
    found = list(parts.module(module).named_parameters())
    adapters = [(name, parameter) for name, parameter in found if ".lora_" in name]
    yield from adapters or found
