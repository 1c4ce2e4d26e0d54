"""The captioner on the wire: proto messages to calls of `Captioner` and back, and which error is which status."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from artifacts import errors as store_errors
from artifacts.sessions import Sessions
from artifacts.store import ObjectStore
from chassis.errors import ErrorRule, ErrorTable
from chassis.metrics import process_registry
from chassis.server import Binding, Server
from darkroom.captioner.v1 import messages_pb2 as pb
from darkroom.captioner.v1 import service_pb2, service_pb2_grpc
from grpc import StatusCode
from prometheus_client import CollectorRegistry

from captioner import errors, generation, images
from captioner.config import CaptionerConfig
from captioner.metrics import batch_metrics
from captioner.service import Captioner, ReadsImages
from captioner.session_captions import Wording, caption_session

if TYPE_CHECKING:
    import grpc

    from captioner.blip2 import GenerationModel
    from captioner.retrieval import RetrievalModel

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
SERVICE = service_pb2.DESCRIPTOR.services_by_name["CaptionerService"].full_name

ERRORS: ErrorTable = {
    errors.ModelLoading: ErrorRule(StatusCode.UNAVAILABLE, "MODEL_LOADING", retry_seconds=2),
    errors.QueueFull: ErrorRule(StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_seconds=1),
    errors.ImageUnreadable: ErrorRule(StatusCode.INVALID_ARGUMENT, "IMAGE_UNREADABLE"),
    errors.ImageTooLarge: ErrorRule(StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE"),
    errors.ImageFileTooLarge: ErrorRule(StatusCode.INVALID_ARGUMENT, "IMAGE_TOO_LARGE"),
    errors.SettingsContradict: ErrorRule(StatusCode.INVALID_ARGUMENT, "SETTINGS_CONTRADICT"),
    errors.PromptUnusable: ErrorRule(StatusCode.INVALID_ARGUMENT, "PROMPT_UNUSABLE"),
    errors.NoRetrievalModel: ErrorRule(StatusCode.FAILED_PRECONDITION, "NO_RETRIEVAL_MODEL"),
    errors.SessionEmpty: ErrorRule(StatusCode.FAILED_PRECONDITION, "SESSION_EMPTY"),
    store_errors.NotFound: ErrorRule(StatusCode.NOT_FOUND, "NOT_FOUND"),
    store_errors.InvalidName: ErrorRule(StatusCode.INVALID_ARGUMENT, "INVALID_NAME"),
    store_errors.CaptionInvalid: ErrorRule(StatusCode.FAILED_PRECONDITION, "CAPTION_INVALID"),
    store_errors.ManifestInvalid: ErrorRule(StatusCode.FAILED_PRECONDITION, "RECORD_INVALID"),
    store_errors.AccessDenied: ErrorRule(StatusCode.FAILED_PRECONDITION, "STORE_ACCESS_DENIED"),
    store_errors.StoreError: ErrorRule(StatusCode.FAILED_PRECONDITION, "STORE_REJECTED"),
    store_errors.StoreUnavailable: ErrorRule(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE", retry_seconds=5),
}


class CaptionerServicer(service_pb2_grpc.CaptionerServiceServicer):
    """The calls of CaptionerService."""

    def __init__(self, captioner: Captioner, store: ObjectStore) -> None:
        self._captioner = captioner
        self._store = store

    async def GetModel(self, request: pb.GetModelRequest, context: Context) -> pb.Model:
        model = self._captioner.generation
        answer = pb.Model(
            name=model.name,
            image_size_px=model.image_size_px,
            num_query_tokens=model.num_query_tokens,
            precision=model.precision,
            device=model.device,
            digest=model.digest,
            max_batch_images=self._captioner.max_batch,
        )
        try:
            retrieval = self._captioner.retrieval
        except errors.NoRetrievalModel:
            return answer
        answer.retrieval_name = retrieval.name
        answer.embedding_dim = retrieval.embedding_dim
        return answer

    async def Caption(self, request: pb.CaptionRequest, context: Context) -> pb.CaptionResponse:
        settings = to_settings(request.settings, generation.CAPTION_BEAMS)
        readers = self._readers(request.images)
        texts = await self._captioner.generate(readers, [caption_prompt(request)] * len(readers), settings)
        return pb.CaptionResponse(captions=map(to_caption, texts))

    async def Answer(self, request: pb.AnswerRequest, context: Context) -> pb.AnswerResponse:
        settings = to_settings(request.settings, generation.ANSWER_BEAMS)
        prompts = [self._captioner.generation.question_prompt(question.text) for question in request.questions]
        readers = self._readers([question.image for question in request.questions])
        texts = await self._captioner.generate(readers, prompts, settings)
        return pb.AnswerResponse(answers=map(to_caption, texts))

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:
        image_vectors, text_vectors = await self._captioner.embed(self._readers(request.images), list(request.texts))
        return pb.EmbedResponse(
            images=[
                pb.Embedding(values=[value for vector in vectors for value in vector], num_vectors=len(vectors))
                for vectors in image_vectors
            ],
            texts=[pb.Embedding(values=vector, num_vectors=1) for vector in text_vectors],
        )

    async def Match(self, request: pb.MatchRequest, context: Context) -> pb.MatchResponse:
        itc, itm = await self._captioner.match(self._readers(request.images), list(request.texts), request.with_itm)
        rows = [pb.MatchRow(scores=[pb.MatchScore(itc_similarity=value) for value in row]) for row in itc]
        if itm is not None:
            for row, probabilities in zip(rows, itm, strict=True):
                for score, probability in zip(row.scores, probabilities, strict=True):
                    score.itm_probability = probability
        return pb.MatchResponse(rows=rows)

    async def CaptionSession(
        self, request: pb.CaptionSessionRequest, context: Context
    ) -> AsyncIterator[pb.CaptionSessionResponse]:
        settings = to_settings(request.settings, generation.CAPTION_BEAMS)
        prompt = caption_prompt(request)
        self._captioner.check([prompt], settings)  # once, before the session is read

        async def describe(read: Callable[[], bytes]) -> generation.Text:
            return (await self._captioner.generate([read], [prompt], settings))[0]

        wording = Wording(request.prefix, request.suffix, request.existing == pb.EXISTING_CAPTIONS_REPLACE)
        session = request.session.removeprefix("sessions/")
        async for outcome in caption_session(Sessions(self._store), session, wording, describe):
            yield pb.CaptionSessionResponse(
                image=f"{request.session}/images/{outcome.filename}",
                caption=outcome.caption,
                skipped=outcome.skipped,
                error=outcome.error,
                num_done=outcome.num_done,
                num_total=outcome.num_total,
            )

    def _readers(self, sources: Sequence[pb.Image]) -> list[ReadsImages]:
        """Functions that give the bytes, so that the store is read in the decoding threads."""
        return [
            partial(read_object, self._store, source.object)
            if source.WhichOneof("source") == "object"
            else partial(bytes, source.data)
            for source in sources
        ]


def read_object(store: ObjectStore, key: str) -> bytes:
    """An image file in the bucket. Raises NotFound and ImageFileTooLarge."""
    images.check_file_size(key, store.stat(key).size_bytes)
    return store.get(key)


def caption_prompt(request: pb.CaptionRequest | pb.CaptionSessionRequest) -> str:
    """The request's prompt, or the one the published OPT captions start with."""
    return request.prompt if request.HasField("prompt") else "a photo of"


def to_settings(message: pb.GenerationSettings, default_beams: int) -> generation.Settings:
    """Domain settings; fields that are set replace the defaults, and sampling defaults to one beam."""
    given = {field.name: value for field, value in message.ListFields()}
    beams = 1 if given.get("temperature", 0) > 0 else default_beams
    return replace(generation.Settings(num_beams=beams), **given)


def to_caption(text: generation.Text) -> pb.Caption:
    """The wire form of a generated text."""
    return pb.Caption(text=text.text, truncated=text.truncated, num_tokens=text.num_tokens)


def build(config: CaptionerConfig, registry: CollectorRegistry | None = None) -> tuple[Server, Captioner]:
    """A server that is not started and the captioner behind it, which still has to load its models."""
    registry = registry or process_registry()
    captioner = Captioner(
        config.max_batch_images,
        config.max_queue_images,
        config.batch_window_milliseconds / 1000,
        batch_metrics(registry),
    )
    servicer = CaptionerServicer(captioner, ObjectStore(config.store))
    register = partial(service_pb2_grpc.add_CaptionerServiceServicer_to_server, servicer)
    return Server("captioner", config.server, [Binding(SERVICE, register)], ERRORS, registry), captioner


async def load(captioner: Captioner, config: CaptionerConfig) -> None:
    """Import torch and load the models, both in the model thread. Raises ModelUnusable."""
    await captioner.load(
        partial(_generation_model, config), partial(_retrieval_model, config) if config.retrieval_model else None
    )


def _generation_model(config: CaptionerConfig) -> "GenerationModel":
    from captioner.blip2 import GenerationModel

    return GenerationModel(Path(config.model), config.device, config.precision)


def _retrieval_model(config: CaptionerConfig) -> "RetrievalModel":
    from captioner.retrieval import RetrievalModel

    return RetrievalModel(Path(config.retrieval_model), config.device, config.precision)
