"""The captioner's work without any wire: decode, prepare, batch, generate.

`server` turns requests into these calls; the models come in when they are loaded.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol, TypeVar

from captioner import images
from captioner.batching import Batcher, BatchObserver
from captioner.errors import ModelLoading, NoRetrievalModel
from captioner.generation import Row, Settings, Text, batch_key, check_words

if TYPE_CHECKING:  # The models import torch, which takes seconds; the port must be open before that.
    from captioner.blip2 import GenerationModel
    from captioner.retrieval import RetrievalModel

T = TypeVar("T")


class ReadsImages(Protocol):
    """Gives the encoded bytes of one picture; called in a worker thread."""

    def __call__(self) -> bytes: ...


class Captioner:
    """One generation model, perhaps one retrieval model, and the threads around them."""

    def __init__(self, max_batch: int, max_queue: int, window_seconds: float, observer: BatchObserver) -> None:
        self._generation: GenerationModel | None = None
        self._retrieval: RetrievalModel | None = None
        self._retrieval_configured = False
        self._decoders = ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1), thread_name_prefix="decode")
        self._model_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self.max_batch = max_batch
        self._batcher: Batcher[Row, Text] = Batcher(
            lambda entries: self.generation.generate(entries),
            self._model_thread,
            max_batch,
            max_queue,
            window_seconds,
            observer,
        )

    async def load(
        self, generation: "Callable[[], GenerationModel]", retrieval: "Callable[[], RetrievalModel] | None"
    ) -> None:
        """Load the models in the model thread, the only one that uses them. Raises ModelUnusable."""
        self._retrieval_configured = retrieval is not None
        self._batcher.start()
        self._generation = await self._on_model(generation)
        if retrieval is not None:
            self._retrieval = await self._on_model(retrieval)

    async def close(self) -> None:
        """Stop the threads; waiting rows are cancelled."""
        await self._batcher.stop()
        self._decoders.shutdown(wait=False, cancel_futures=True)
        self._model_thread.shutdown(wait=False, cancel_futures=True)

    @property
    def generation(self) -> "GenerationModel":
        """The generation model. Raises ModelLoading until it is there."""
        if self._generation is None:
            raise ModelLoading
        return self._generation

    @property
    def retrieval(self) -> "RetrievalModel":
        """The retrieval model. Raises ModelLoading, NoRetrievalModel."""
        if self._retrieval is None:
            raise ModelLoading if self._retrieval_configured or self._generation is None else NoRetrievalModel
        return self._retrieval

    def check(self, prompts: Iterable[str], settings: Settings) -> None:
        """Refuse what would spoil a batch. Raises SettingsContradict, PromptUnusable and ModelLoading."""
        settings.check()
        for prompt in dict.fromkeys(prompts):
            self.generation.check_prompt(prompt, settings)

    async def generate(self, readers: Sequence[ReadsImages], prompts: Sequence[str], settings: Settings) -> list[Text]:
        """A text for each picture and prompt, in order. Raises what `check`, reading and decoding raise, and QueueFull."""
        model = self.generation
        self.check(prompts, settings)
        with self._batcher.admitted(len(readers)):
            with self._batcher.preparing(len(readers)):
                pixels = await self._prepare(readers, model.prepare)
                rows = [Row(pixel, prompt, settings) for pixel, prompt in zip(pixels, prompts, strict=True)]
                waiting = asyncio.ensure_future(self._batcher.submit(rows, lambda row: batch_key(row.settings)))
            try:
                return await waiting
            finally:
                waiting.cancel()

    async def embed(
        self, readers: Sequence[ReadsImages], texts: Sequence[str]
    ) -> tuple[list[list[list[float]]], list[list[float]]]:
        """Vectors of pictures [image][query token][dim] and of texts [text][dim]. Raises as `generate` does."""
        model = self.retrieval
        for text in texts:
            check_words(text)
        with self._batcher.admitted(len(readers) + len(texts)):
            pixels = await self._prepare(readers, model.prepare)
            image_vectors = (await self._on_model(lambda: model.embed_images(pixels))).tolist() if pixels else []
            text_vectors = (await self._on_model(lambda: model.embed_texts(texts))).tolist() if texts else []
        return image_vectors, text_vectors

    async def match(
        self, readers: Sequence[ReadsImages], texts: Sequence[str], with_itm: bool
    ) -> tuple[list[list[float]], list[list[float]] | None]:
        """ITC similarities and, if asked for, ITM probabilities, both [image][text]. Raises as `generate` does."""
        model = self.retrieval
        for text in texts:
            check_words(text)
        with self._batcher.admitted(len(readers)):
            pixels = await self._prepare(readers, model.prepare)
            itc, itm = await self._on_model(lambda: model.match(pixels, texts, with_itm))
        return itc.tolist(), None if itm is None else itm.tolist()

    async def _prepare(self, readers: Sequence[ReadsImages], prepare: Callable[..., T]) -> list[T]:
        loop = asyncio.get_running_loop()

        def one(index: int, read: ReadsImages) -> T:
            return prepare(images.decode(read(), index))

        return await asyncio.gather(
            *(loop.run_in_executor(self._decoders, one, index, read) for index, read in enumerate(readers))
        )

    async def _on_model(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._model_thread, work)
