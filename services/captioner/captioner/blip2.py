"""The BLIP-2 generation model (Li et al. 2023, arXiv 2301.12597): pictures and prompts in, texts out.

Adapter over transformers; one worker thread owns it. Sizes and token numbers come from the checkpoint, never from defaults.
"""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2Processor,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteriaList,
)

from captioner import folders
from captioner.batching import Entry
from captioner.errors import ModelUnusable, PromptUnusable
from captioner.generation import IMAGE_TOKEN, Row, Settings, Text, batch_key, check_words
from captioner.sampling import RowSampler, StopAbandoned

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class GenerationModel:
    """A loaded model. Loading raises ModelUnusable for a folder whose answers would be silently wrong."""

    def __init__(self, folder: Path, device: str, precision: str) -> None:
        config = folders.read_config(folder, "Blip2ForConditionalGeneration")
        if not config.get("use_decoder_only_language_model", True):
            raise ModelUnusable(
                f"{folder}: its language model is an encoder-decoder; one that continues its prompt (OPT) is needed"
            )
        self.name = folder.resolve().name
        self.device = resolve_device(device)
        self.precision = precision
        self.digest = folders.digest(folder)
        self._processor = Blip2Processor.from_pretrained(folder)
        model = Blip2ForConditionalGeneration.from_pretrained(folder, dtype=DTYPES[precision])
        self._model = model.eval().to(self.device)
        self.num_query_tokens: int = self._model.config.num_query_tokens
        self.image_size_px: int = self._model.config.vision_config.image_size
        self._check(folder, config)
        self.max_positions: int = self._model.config.text_config.max_position_embeddings
        self._end_ids = self._read_end_ids()
        # Padding changes a tokenizer's state, so that one cannot serve two threads.
        self._checking_tokenizer = copy.deepcopy(self._processor.tokenizer)

    def prepare(self, image: Image.Image) -> torch.Tensor:
        """Pixels of one RGB picture; safe to call from several threads."""
        pixels: torch.Tensor = self._processor.image_processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels

    @staticmethod
    def question_prompt(question: str) -> str:
        """The template of zero-shot VQA (BLIP-2 paper, section 4.1); bare questions get empty answers."""
        return f"Question: {question.strip()} Answer:"

    def check_prompt(self, prompt: str, settings: Settings) -> None:
        """Raises PromptUnusable. Not to be called from several threads at once."""
        check_words(prompt)
        num_prompt = len(self._checking_tokenizer(prompt)["input_ids"])
        needed = self.num_query_tokens + num_prompt + settings.max_new_tokens
        if needed > self.max_positions:
            raise PromptUnusable(
                f"{self.num_query_tokens} image tokens, {num_prompt} of the prompt and max_new_tokens "
                f"{settings.max_new_tokens} are {needed}, and {self.name} has {self.max_positions} positions; "
                "shorten the prompt or lower max_new_tokens"
            )

    @torch.inference_mode()
    def generate(self, entries: Sequence[Entry[Row, Text]]) -> list[Text]:
        """Texts of rows with one batch key, each without its prompt. The same as one by one, token for token."""
        rows = [entry.row for entry in entries]
        input_ids, attention_mask = self._prompt_tokens([row.prompt for row in rows])
        pixels = torch.stack([row.pixels for row in rows]).to(self.device, DTYPES[self.precision])
        output = self._model.generate(
            pixel_values=pixels,
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=self._generation_config(rows[0].settings),
            logits_processor=LogitsProcessorList([RowSampler([row.settings for row in rows])])
            if any(row.settings.samples for row in rows)
            else None,
            stopping_criteria=StoppingCriteriaList([StopAbandoned(entries)]),
        )
        new_ids = output[:, input_ids.shape[1] :].tolist()
        return [self._to_text(ids, row.settings) for ids, row in zip(new_ids, rows, strict=True)]

    def _prompt_tokens(self, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """input_ids and mask (rows, query tokens + longest prompt): image tokens, left padding, BOS, text.

        Left padding keeps a short prompt's continuation next to its text; right padding changes the answer.
        """
        encoded = self._processor.tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
        num_rows = len(prompts)
        image_ids = torch.full((num_rows, self.num_query_tokens), self._model.config.image_token_index)
        input_ids = torch.cat([image_ids, encoded["input_ids"]], dim=1)
        mask = torch.cat([torch.ones_like(image_ids), encoded["attention_mask"]], dim=1)
        return input_ids.to(self.device), mask.to(self.device)

    def _generation_config(self, settings: Settings) -> GenerationConfig:
        key = batch_key(settings)
        own = self._model.generation_config
        # What is None here would come from the checkpoint's generation_config.json.
        return GenerationConfig(
            num_beams=key.num_beams,
            early_stopping=False,
            # Rows that sample do so in RowSampler, so that one call can hold different seeds.
            do_sample=False,
            min_new_tokens=key.min_new_tokens,
            max_new_tokens=key.max_new_tokens,
            repetition_penalty=key.repetition_penalty,
            no_repeat_ngram_size=key.no_repeat_ngram_size,
            length_penalty=key.length_penalty,
            eos_token_id=self._end_ids,
            bos_token_id=own.bos_token_id,
            pad_token_id=own.pad_token_id if own.pad_token_id is not None else self._processor.tokenizer.pad_token_id,
        )

    def _to_text(self, ids: list[int], settings: Settings) -> Text:
        ends = [position for position, token in enumerate(ids) if token in self._end_ids]
        kept = ids[: ends[0]] if ends else ids
        text = self._processor.tokenizer.decode(kept, skip_special_tokens=True).strip()
        return Text(text, truncated=not ends and len(ids) >= settings.max_new_tokens, num_tokens=len(kept))

    def _read_end_ids(self) -> list[int]:
        """Token ids that end a text: the checkpoint's own (BLIP-2 OPT: newline)."""
        own = self._model.generation_config.eos_token_id
        if own is None:
            own = self._model.config.text_config.eos_token_id
        return list(own) if isinstance(own, list) else [own]

    def _check(self, folder: Path, config: dict[str, Any]) -> None:
        """Each of these mistakes gives fluent captions that ignore the picture, so they end the start."""
        wanted = self.num_query_tokens
        found = self._processor.num_query_tokens
        if found != wanted:
            raise ModelUnusable(
                f"{folder}: the processor puts {found} image tokens into a prompt and the model needs {wanted}; "
                "set num_query_tokens in processor_config.json"
            )
        token_id = self._processor.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
        index = config.get("image_token_index")
        if token_id != index:
            raise ModelUnusable(
                f"{folder}: {IMAGE_TOKEN} is token {token_id} of the tokenizer and {index} in config.json"
            )
        size = self._processor.image_processor.size
        edges = {size["height"], size["width"]} if "height" in size else set(size.values())
        if edges != {self.image_size_px}:
            raise ModelUnusable(
                f"{folder}: the processor scales to {dict(size)}, the model sees {self.image_size_px} px"
            )


def resolve_device(device: str) -> str:
    """The torch device to use; "auto" takes a GPU if there is one. Raises ValueError if cuda is asked for and not there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"DARKROOM_DEVICE is {device!r}, but torch finds no CUDA device; give the process one and the CUDA build of torch "
            "(images with -cuda behind their tag), or set it to 'cpu' or 'auto'"
        )
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    return device
