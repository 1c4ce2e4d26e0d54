"""The two BLIP-2 models, small: their configurations, their fresh weights, and how a training step sees pictures."""

import numpy as np
import torch
from drawing.canvas import SIDE_PX
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    OPTConfig,
    PreTrainedTokenizerBase,
)

QUERIES = 8
WIDTH = 128
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's pictures, as in every published BLIP-2
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
LONGEST_TEXT = 256  # tokens, image tokens included


def vision_config() -> Blip2VisionConfig:
    return Blip2VisionConfig(
        hidden_size=WIDTH,
        intermediate_size=3 * WIDTH,
        num_hidden_layers=4,
        num_attention_heads=4,
        image_size=SIDE_PX,
        patch_size=8,
        initializer_range=0.02,  # the default of 1e-10 leaves a ViT that no gradient wakes up
    )


def qformer_config(vocabulary: int = 0) -> Blip2QFormerConfig:
    """With a vocabulary the Q-Former reads text, too."""
    return Blip2QFormerConfig(
        vocab_size=vocabulary or 2,
        hidden_size=WIDTH,
        num_hidden_layers=3 if vocabulary else 2,
        num_attention_heads=4,
        intermediate_size=3 * WIDTH,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        max_position_embeddings=LONGEST_TEXT,
        cross_attention_frequency=1,
        encoder_hidden_size=WIDTH,
        use_qformer_text_input=bool(vocabulary),
    )


def build_captioner(tokens: PreTrainedTokenizerBase) -> Blip2ForConditionalGeneration:
    """Fresh weights; the text ends at the newline, as in the published OPT checkpoints."""
    newline = tokens.convert_tokens_to_ids("Ċ")
    text = OPTConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        num_hidden_layers=4,
        ffn_dim=4 * WIDTH,
        num_attention_heads=4,
        max_position_embeddings=LONGEST_TEXT,
        dropout=0.0,
        attention_dropout=0.0,
        activation_function="relu",
        pad_token_id=tokens.pad_token_id,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=newline,
    )
    config = Blip2Config(
        vision_config=vision_config(),
        qformer_config=qformer_config(),
        text_config=text,
        num_query_tokens=QUERIES,
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_text_hidden_size=WIDTH,
    )
    torch.manual_seed(0)
    model = Blip2ForConditionalGeneration(config)
    return _awake(model)


def build_matcher(tokens: PreTrainedTokenizerBase) -> Blip2ForImageTextRetrieval:
    config = Blip2Config(
        vision_config=vision_config(),
        qformer_config=qformer_config(len(tokens)),
        text_config=OPTConfig(  # unused by this class, written by every published checkpoint
            vocab_size=len(tokens), hidden_size=WIDTH, word_embed_proj_dim=WIDTH, num_hidden_layers=1, ffn_dim=WIDTH
        ),
        num_query_tokens=QUERIES,
        image_token_index=tokens.convert_tokens_to_ids("<image>"),
        image_text_hidden_size=64,
    )
    torch.manual_seed(0)
    return _awake(Blip2ForImageTextRetrieval(config))


def _awake(model: torch.nn.Module) -> torch.nn.Module:
    """Query tokens start at zero, all alike; drawn at random they can learn different things.

    Places start as waves of the size of the patches' own vectors: with the usual 0.02 attention finds shape and place
    only after a long plateau.
    """
    embeddings = model.vision_model.embeddings
    with torch.no_grad():
        model.query_tokens.normal_(std=0.5)
        embeddings.position_embedding[0, 1:] = 0.3 * _waves(SIDE_PX // embeddings.patch_size)
    return model


def _waves(side: int) -> torch.Tensor:
    """Sines and cosines of the row and the column: (side * side, WIDTH)."""
    count = WIDTH // 4
    frequencies = torch.pi / side * (1 + torch.arange(count) * (side - 1) / count)
    angles = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=2).flatten(0, 1)


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """uint8 (n, 64, 64, 3) as the processor gives it to the model: float (n, 3, 64, 64), mean and deviation removed."""
    scaled = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    mean, deviation = torch.tensor(MEAN)[:, None, None], torch.tensor(DEVIATION)[:, None, None]
    return ((scaled - mean) / deviation).contiguous()
