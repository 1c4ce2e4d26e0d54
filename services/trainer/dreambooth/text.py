"""Prompts to text states. Training and sampling go through the same three functions."""

from collections.abc import Callable, Sequence

import torch

from dreambooth.parts import Parts


def token_ids(parts: Parts, prompts: Sequence[str]) -> torch.Tensor:
    """Token numbers, shape (prompts, tokens), padded and cut to the tokenizer's own length, on the device."""
    tokens = parts.tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=_longest(parts),
        return_tensors="pt",
    )
    ids: torch.Tensor = tokens.input_ids.to(parts.device)
    return ids


def warn_about_length(parts: Parts, prompts: Sequence[str], warn: Callable[[str], None]) -> None:
    """Say which prompts lose their end."""
    for prompt in dict.fromkeys(prompts):
        length = len(parts.tokenizer(prompt).input_ids)
        if length > _longest(parts):
            warn(
                f"prompt has {length} tokens, the text encoder reads {_longest(parts)}; its end is ignored: {prompt!r}"
            )


def states(parts: Parts, ids: torch.Tensor) -> torch.Tensor:
    """The text encoder's last states after its final norm, shape (prompts, tokens, width)."""
    found: torch.Tensor = parts.text_encoder(ids, return_dict=False)[0]
    return found


class FrozenStates:
    """States of prompts while the text encoder stays as it is: each prompt is encoded once, in fp32, also under autocast."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[str, torch.Tensor] = {}

    def of(self, prompts: Sequence[str]) -> torch.Tensor:
        """Shape (prompts, tokens, width)."""
        for prompt in prompts:
            if prompt not in self._known:
                with torch.no_grad(), torch.autocast(self._parts.device.type, enabled=False):
                    self._known[prompt] = states(self._parts, token_ids(self._parts, [prompt]))
        return torch.cat([self._known[prompt] for prompt in prompts])


class TrainedStates:
    """States of prompts while the text encoder learns, with gradients; each prompt is tokenized once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: dict[str, torch.Tensor] = {}

    def of(self, prompts: Sequence[str]) -> torch.Tensor:
        """Shape (prompts, tokens, width)."""
        for prompt in prompts:
            if prompt not in self._known:
                self._known[prompt] = token_ids(self._parts, [prompt])
        return states(self._parts, torch.cat([self._known[prompt] for prompt in prompts]))


def _longest(parts: Parts) -> int:
    # A tokenizer without a stated length says 10^30; the position table is the real limit then.
    return min(int(parts.tokenizer.model_max_length), int(parts.text_encoder.config.max_position_embeddings))
