"""Prompts to text states. Training and sampling go through the same three functions."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import torch

from dreambooth.parts import Parts
from dreambooth.wording import first_few

MAX_CACHE_BYTES = 512 * 1024**2


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
    longest = _longest(parts)
    lengths = {prompt: len(parts.tokenizer(prompt).input_ids) for prompt in dict.fromkeys(prompts)}
    too_long = [
        f"prompt has {length} tokens, the text encoder reads {longest}; its end is ignored: {prompt!r}"
        for prompt, length in lengths.items()
        if length > longest
    ]
    for sentence in first_few(too_long, "prompts are too long"):
        warn(sentence)


def states(parts: Parts, ids: torch.Tensor) -> torch.Tensor:
    """The text encoder's last states after its final norm, shape (prompts, tokens, width)."""
    found: torch.Tensor = parts.text_encoder(ids, return_dict=False)[0]
    return found


class FrozenStates:
    """States of prompts while the text encoder stays as it is, in fp32, also under autocast.

    Each prompt is encoded once, as long as MAX_CACHE_BYTES hold all of them; those used longest ago go first. One prompt at
    a time: what is encoded again has the same bits.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._known: OrderedDict[str, torch.Tensor] = OrderedDict()
        self._size_bytes = 0

    def of(self, prompts: Sequence[str]) -> torch.Tensor:
        """Shape (prompts, tokens, width)."""
        return torch.cat([self._state(prompt) for prompt in prompts])

    def _state(self, prompt: str) -> torch.Tensor:
        found = self._known.get(prompt)
        if found is not None:
            self._known.move_to_end(prompt)
            return found
        with torch.no_grad(), torch.autocast(self._parts.device.type, enabled=False):
            found = states(self._parts, token_ids(self._parts, [prompt]))
        self._known[prompt] = found
        self._size_bytes += found.nbytes
        while self._size_bytes > MAX_CACHE_BYTES:
            _, oldest = self._known.popitem(last=False)
            self._size_bytes -= oldest.nbytes
        return found


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
