"""The two stages: first the text encoder alone, then the UNet alone. Either may have no steps and is then left out.

This is `text_encoder_only_first`: in the first stage the UNet is truly frozen, without gradients of its weights and
without optimizer state; gradients only pass through it to the text states. The notebook flow that people know as "train
the text encoder first" does otherwise (`joint_then_discard`): its first launch trains UNet and text encoder together,
keeps the text encoder and throws that UNet away. Both start the second stage from the base's UNet, with a fresh
optimizer and schedule. The recipe's record in the manifest says which mode ran.
"""

from dataclasses import dataclass

from torch import nn

from dreambooth.parts import Parts
from dreambooth.recipe import TEXT_ENCODER, UNET, Recipe


@dataclass(frozen=True)
class Stage:
    """What trains (the stage's name), for how many updates, from which learning rate on."""

    name: str
    num_steps: int
    learning_rate: float

    @property
    def trains_text_encoder(self) -> bool:
        """Whether text states change from step to step."""
        return self.name == TEXT_ENCODER

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 1): linear from the full rate to 0, no warm-up."""
        return self.learning_rate * (self.num_steps - (step - 1)) / self.num_steps


def of(recipe: Recipe) -> tuple[Stage, ...]:
    """The stages with steps, in order."""
    settings = ((TEXT_ENCODER, recipe.text_encoder), (UNET, recipe.unet))
    return tuple(Stage(name, chosen.steps, chosen.learning_rate) for name, chosen in settings if chosen.steps > 0)


def open_for_training(parts: Parts, stage: Stage) -> nn.Module:
    """Freeze everything except the stage's module, and return that.

    It too stays in evaluation mode. All that training mode would change is dropout: published models have none, and its
    draws would come from torch's own generator, not from `draws`.
    """
    for module in (parts.unet, parts.text_encoder, parts.vae):
        module.requires_grad_(False).eval()
    trained: nn.Module = parts.text_encoder if stage.trains_text_encoder else parts.unet
    return trained.requires_grad_(True)


def close(module: nn.Module) -> None:
    """Freeze a trained module and drop its gradients."""
    module.zero_grad(set_to_none=True)
    module.requires_grad_(False)
