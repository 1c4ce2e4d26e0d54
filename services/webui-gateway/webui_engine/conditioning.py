"""Prompts to embeddings as A1111 computes them: chunks, emphasis, restored mean, clip skip.

`generate.py` calls `encode`; the prompt language itself is in `prompts.py`.
Shapes: B chunks, L tokens of the text encoder's window (77 for SD), D its width: ids and weights (B, L), hidden (B, L, D).
"""

import logging
from typing import Any

import torch

from webui_engine import prompts
from webui_engine.errors import RequestInvalid
from webui_engine.pipelines import Loaded
from webui_engine.prompts import Chunk

# The tokenizer warns about every long prompt, which is exactly what is cut into chunks here.
logging.getLogger("transformers.tokenization_utils_base").setLevel(logging.ERROR)


def encode(loaded: Loaded, text: str, clip_skip: int) -> torch.Tensor:
    """The embedding (1, B * L, D) of a prompt of any length. clip_skip 1 is the last layer, 2 the one before, ...

    Raises RequestInvalid if the text encoder has fewer layers.
    """
    layers = int(loaded.text_encoder.config.num_hidden_layers)
    if clip_skip > layers:
        problem = f"found {clip_skip}, but model {loaded.model.title!r} has {layers} layers"
        raise RequestInvalid("CLIP_stop_at_last_layers", problem)
    window = window_tokens(loaded)
    tokenizer = loaded.tokenizer
    comma = tokenizer.convert_tokens_to_ids(",</w>")
    chunks = prompts.split(
        prompts.parse(text), lambda words: _tokenize(tokenizer, words), window - 2,
        None if comma == tokenizer.unk_token_id else comma,
    )  # fmt: skip
    ids = torch.tensor([_padded_ids(chunk, window, tokenizer) for chunk in chunks])
    weights = torch.tensor([_padded_weights(chunk, window) for chunk in chunks])
    hidden = _hidden_states(loaded, ids.to(loaded.placement.device), clip_skip)
    weighted = _emphasize(hidden, weights.to(hidden))
    return weighted.reshape(1, -1, weighted.shape[-1])


def window_tokens(loaded: Loaded) -> int:
    """Tokens that the text encoder reads at once, start and end included."""
    return int(min(loaded.tokenizer.model_max_length, loaded.text_encoder.config.max_position_embeddings))


def _tokenize(tokenizer: Any, words: str) -> list[int]:
    ids: list[int] = tokenizer(words, add_special_tokens=False, truncation=False)["input_ids"]
    return ids


def _padded_ids(chunk: Chunk, window: int, tokenizer: Any) -> list[int]:
    """start, tokens, end, and the tokenizer's padding up to the window."""
    ids = [tokenizer.bos_token_id, *chunk.tokens, tokenizer.eos_token_id]
    return ids + [tokenizer.pad_token_id] * (window - len(ids))


def _padded_weights(chunk: Chunk, window: int) -> list[float]:
    weights = [1.0, *chunk.weights, 1.0]
    return weights + [1.0] * (window - len(weights))


def _hidden_states(loaded: Loaded, ids: torch.Tensor, clip_skip: int) -> torch.Tensor:
    encoder = loaded.text_encoder
    output = encoder(ids, output_hidden_states=True)
    if clip_skip == 1:
        last: torch.Tensor = output.last_hidden_state
        return last
    # transformers 5.6 moved the parts of CLIPTextModel.text_model into CLIPTextModel itself.
    final_norm = getattr(encoder, "text_model", encoder).final_layer_norm
    earlier: torch.Tensor = final_norm(output.hidden_states[-clip_skip])
    return earlier


def _emphasize(hidden: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply each token's embedding by its weight, then bring each chunk's mean back to what it was."""
    if bool((weights == 1).all()):
        return hidden
    before = hidden.mean(dim=(1, 2), keepdim=True)
    weighted = hidden * weights[:, :, None]
    return weighted * (before / weighted.mean(dim=(1, 2), keepdim=True))
