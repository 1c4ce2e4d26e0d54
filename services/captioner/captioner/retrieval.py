"""The BLIP-2 retrieval model: embeddings, contrastive similarity (ITC) and matching probability (ITM).

Adapter over transformers; one worker thread owns it. The vision tower runs once for each picture, whatever the number of texts.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch.nn.functional import normalize
from transformers import Blip2ForImageTextRetrieval, Blip2Processor

from captioner import folders
from captioner.blip2 import DTYPES, resolve_device

# As published (LAVIS): captions longer than this were cut in training.
MAX_TEXT_TOKENS = 32
_PAIRS_AT_ONCE = 64


class RetrievalModel:
    """A loaded retrieval model. Raises ModelUnusable for another kind of folder."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        folders.read_config(folder, "Blip2ForImageTextRetrieval")
        self.name = folder.resolve().name
        self._device = resolve_device(device)
        self._dtype = DTYPES[precision]
        self._processor = Blip2Processor.from_pretrained(folder)
        self._model = Blip2ForImageTextRetrieval.from_pretrained(folder, dtype=self._dtype).eval().to(self._device)
        self.embedding_dim: int = self._model.config.image_text_hidden_size

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Pixels (3, size, size) of one RGB picture."""
        pixels: torch.Tensor = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    @torch.inference_mode()
    def embed_images(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Unit vectors (images, query tokens, embedding_dim)."""
        return self._project_images(self._see(pixels)).float().cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors (texts, embedding_dim)."""
        return self._project_texts(*self._tokens(texts)).float().cpu()

    @torch.inference_mode()
    def match(
        self, pixels: Sequence[torch.Tensor], texts: Sequence[str], with_itm: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """ITC similarities in [-1, 1] and, if asked for, ITM probabilities in [0, 1]; both (images, texts)."""
        seen = self._see(pixels)
        ids, mask = self._tokens(texts)
        vectors = self._project_images(seen)
        itc = torch.einsum("iqd,td->itq", vectors, self._project_texts(ids, mask)).amax(-1)
        itm = self._match_pairs(seen, ids, mask) if with_itm else None
        return itc.float().cpu(), itm

    def _see(self, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
        """Patch features (images, patches, width)."""
        batch = torch.stack(list(pixels)).to(self._device, self._dtype)
        features: torch.Tensor = self._model.vision_model(batch).last_hidden_state
        return features

    def _tokens(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and mask (texts, longest), padded on the right: positions count from the start."""
        encoded = self._processor.tokenizer(
            list(texts),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=MAX_TEXT_TOKENS,
            return_tensors="pt",
        )
        return encoded["input_ids"].to(self._device), encoded["attention_mask"].to(self._device)

    def _project_images(self, seen: torch.Tensor) -> torch.Tensor:
        model = self._model
        queries = model.query_tokens.expand(seen.shape[0], -1, -1)
        output = model.qformer(query_embeds=queries, encoder_hidden_states=seen).last_hidden_state
        return normalize(model.vision_projection(output.to(model.vision_projection.weight.dtype)), dim=-1)

    def _project_texts(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        model = self._model
        embedded = model.embeddings(input_ids=ids)
        output = model.qformer(query_embeds=embedded, query_length=0, attention_mask=mask).last_hidden_state[:, 0]
        return normalize(model.text_projection(output.to(model.text_projection.weight.dtype)), dim=-1)

    def _match_pairs(self, seen: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Probability that each picture and text belong together: one softmax over the two logits of the ITM head."""
        model = self._model
        num_images, num_texts = seen.shape[0], ids.shape[0]
        pairs = torch.cartesian_prod(torch.arange(num_images), torch.arange(num_texts)).reshape(-1, 2)
        probabilities = []
        for part in torch.split(pairs, _PAIRS_AT_ONCE):
            images, texts = part[:, 0], part[:, 1]
            queries = model.query_tokens.expand(len(part), -1, -1)
            query_mask = torch.ones(queries.shape[:2], dtype=mask.dtype, device=mask.device)
            output = model.qformer(
                query_embeds=model.embeddings(input_ids=ids[texts], query_embeds=queries),
                query_length=queries.shape[1],
                attention_mask=torch.cat([query_mask, mask[texts]], dim=1),
                encoder_hidden_states=seen[images],
            ).last_hidden_state[:, : queries.shape[1]]
            logits = model.itm_head(output.to(model.itm_head.weight.dtype)).mean(dim=1)
            probabilities.append(logits.float().softmax(-1)[:, 1])
        return torch.cat(probabilities).reshape(num_images, num_texts).cpu()
