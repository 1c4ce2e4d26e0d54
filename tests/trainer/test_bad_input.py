"""What people get wrong, through the API: every mistake is named, all of one request together, and nothing is written."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from artifacts.store import ObjectStore
from darkroom.trainer.v1 import session_pb2 as session_pb
from darkroom.trainer.v1 import training_pb2 as pb
from google.rpc import error_details_pb2
from grpc import StatusCode
from PIL import Image
from trainer.config import TrainerConfig

from tests.trainer.conftest import Client, detail, encoded, filled, order, reason, serving, upload, watched

NAN, INFINITE = float("nan"), float("inf")
INVALID, PRECONDITION = StatusCode.INVALID_ARGUMENT, StatusCode.FAILED_PRECONDITION


def content(store: ObjectStore) -> dict[str, str]:
    """Every object of the bucket and its version."""
    return {stat.key: stat.etag for stat in store.list("")}


async def refused(client: Client, store: ObjectStore, call: "grpc.aio.Call") -> grpc.aio.AioRpcError:
    """The error of a call that leaves the bucket as it was."""
    before = content(store)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert content(store) == before
    return caught.value


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """What is wrong with each field."""
    assert error.code() == INVALID
    return {each.field: each.description for each in detail(error, error_details_pb2.BadRequest).field_violations}


def stage(steps: int = 5, rate: float = 1e-4, **more: int) -> pb.StageSettings:
    return pb.StageSettings(steps=steps, learning_rate=rate, **more)


def prior(**settings: object) -> pb.PriorPreservation:
    return pb.PriorPreservation(**{"class_prompt": "a toy", **settings})


RATE = "learning_rate must be above 0 and at most 10 in a stage that has steps"
PRODIGY_ONLY = "learning rates above 0.1 are for Prodigy only"
NO_STEPS = "at least one stage must have steps"
WRONG_SETTINGS = {
    "steps -1": (pb.Recipe(unet=stage(-1)), {"recipe.unet.steps": "greater than or equal to 0"}),
    "steps 0/0": (pb.Recipe(text_encoder=stage(0), unet=stage(0)), {"recipe": NO_STEPS}),
    "steps 10^9": (pb.Recipe(unet=stage(10**9)), {"recipe.unet.steps": "less than or equal to 1000000"}),
    "rate 0": (pb.Recipe(unet=stage(rate=0)), {"recipe.unet": RATE}),
    "negative rate": (pb.Recipe(text_encoder=stage(rate=-1e-6)), {"recipe.text_encoder": RATE}),
    "rate NaN": (pb.Recipe(text_encoder=stage(rate=NAN)), {"recipe.text_encoder": RATE}),
    "rate infinite": (pb.Recipe(unet=stage(rate=INFINITE)), {"recipe.unet": RATE, "recipe": PRODIGY_ONLY}),
    "rate 1": (pb.Recipe(unet=stage(rate=1)), {"recipe": PRODIGY_ONLY}),
    "rate 11 with Prodigy": (pb.Recipe(unet=stage(rate=11), optimizer=pb.OPTIMIZER_PRODIGY), {"recipe.unet": RATE}),
    "warm-up as long as the stage": (
        pb.Recipe(text_encoder=stage(5, warmup_steps=5), unet=stage(5, warmup_steps=9)),
        {
            "recipe.text_encoder.warmup_steps": "is 5, expected fewer",
            "recipe.unet.warmup_steps": "is 9, expected fewer",
        },
    ),
    "negative warm-up": (pb.Recipe(unet=stage(warmup_steps=-1)), {"recipe.unet.warmup_steps": "greater than or equal"}),
    "resolution 513": (pb.Recipe(resolution_px=513), {"recipe.resolution_px": "multiple of 8 from 64 to 2048"}),
    "resolution of a stage": (pb.Recipe(unet=stage(resolution_px=8)), {"recipe.unet.resolution_px": "multiple of 8"}),
    "unknown optimizer": (pb.Recipe(optimizer=99), {"recipe.optimizer": "defined enum values"}),
    "unknown precision": (pb.Recipe(precision=99), {"recipe.precision": "defined enum values"}),
    "unknown stages": (pb.Recipe(stages=99), {"recipe.stages": "defined enum values"}),
    "unknown crop": (pb.Recipe(crop=99), {"recipe.crop": "defined enum values"}),
    "unknown preset": (pb.Recipe(preset=99), {"recipe.preset": "defined enum values"}),
    "unknown schedule": (pb.Recipe(unet=stage(schedule=99)), {"recipe.unet.schedule": "defined enum values"}),
    "LoRA rank 0": (pb.Recipe(lora=pb.Lora(rank=0)), {"recipe.lora.rank": "greater than or equal to 1"}),
    "LoRA alpha 0": (pb.Recipe(lora=pb.Lora(alpha=0)), {"recipe.lora.alpha": "greater than 0"}),
    "negative class images": (
        pb.Recipe(prior_preservation=prior(num_class_images=-1)),
        {"recipe.prior_preservation.num_class_images": "greater than or equal to 0"},
    ),
    "blank class prompt": (
        pb.Recipe(prior_preservation=prior(class_prompt="  ")),
        {"recipe.prior_preservation.class_prompt": "blank"},
    ),
    "no class prompt": (
        pb.Recipe(prior_preservation=prior(class_prompt="")),
        {"recipe.prior_preservation.class_prompt": "at least 1 characters"},
    ),
    "EMA that never forgets": (pb.Recipe(ema_decay=0.99999999), {"recipe.ema_decay": "at most 0.999999"}),
    "captions required but not used": (pb.Recipe(require_captions=True), {"recipe.require_captions": "use_captions"}),
    "buckets of class images": (
        pb.Recipe(crop=pb.CROP_MODE_BUCKETS, prior_preservation=prior()),
        {"recipe.crop": "buckets do not go with prior_preservation"},
    ),
    "one step size for two rates": (
        pb.Recipe(optimizer=pb.OPTIMIZER_PRODIGY, stages=pb.STAGES_MODE_JOINT_THEN_FREEZE),
        {"recipe.stages": "does not go with prodigy"},
    ),
    "what the reference does not have": (
        pb.Recipe(reference_order=True, flip=True),
        {"recipe.reference_order": "is not part of train_dreambooth.py"},
    ),
    "negative seed": (pb.Recipe(seed=-1), {"recipe.seed": "greater than or equal to 0"}),
    "all at once": (
        pb.Recipe(unet=stage(-1, NAN), batch_size=99, optimizer=99, caption_dropout=NAN, lora=pb.Lora(rank=0)),
        {
            "recipe.unet.steps": "greater than or equal to 0",
            "recipe.unet": RATE,
            "recipe.batch_size": "less than or equal to 64",
            "recipe.optimizer": "defined enum values",
            "recipe.caption_dropout": "less than or equal to 1",
            "recipe.lora.rank": "greater than or equal to 1",
        },
    ),
}


@pytest.mark.parametrize(("recipe", "expected"), WRONG_SETTINGS.values(), ids=WRONG_SETTINGS)
async def test_settings_out_of_range(
    client: Client, session: str, store: ObjectStore, recipe: pb.Recipe, expected: dict[str, str]
) -> None:
    request = pb.CreateRunRequest(parent=session, recipe=recipe)
    found = violations(await refused(client, store, client.training.CreateRun(request)))
    assert set(found) == set(expected)
    assert {field: text in found[field] for field, text in expected.items()} == dict.fromkeys(expected, True)


def with_double(path: str, value: float) -> pb.Recipe:
    """A recipe that is right but for one number."""
    recipe = pb.Recipe(unet=stage(), text_encoder=stage(), lora=pb.Lora(), prior_preservation=prior())
    *parents, last = path.split(".")
    message = recipe
    for parent in parents:
        message = getattr(message, parent)
    setattr(message, last, value)
    return recipe


def doubles(descriptor: object = pb.Recipe.DESCRIPTOR, prefix: str = "") -> list[str]:
    """Every number with a fraction that a recipe has."""
    found = []
    for field in descriptor.fields:
        if field.message_type:
            found += doubles(field.message_type, f"{prefix}{field.name}.")
        elif field.type == field.TYPE_DOUBLE:
            found.append(f"{prefix}{field.name}")
    return found


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE, -1.0])
@pytest.mark.parametrize("path", doubles())
async def test_no_number_is_accepted_that_is_none(
    client: Client, session: str, store: ObjectStore, path: str, value: float
) -> None:
    request = pb.CreateRunRequest(parent=session, recipe=with_double(path, value))
    found = violations(await refused(client, store, client.training.CreateRun(request)))
    assert {f"recipe.{path}", f"recipe.{path}".rpartition(".")[0]} & set(found)


async def test_the_reference_draws_for_one_process(config: TrainerConfig, store: ObjectStore, photo: bytes) -> None:
    async with serving(replace(config, run_gpus=2)) as client:
        request = order(await filled(client, photo))
        request.recipe.reference_order = True
        error = await refused(client, store, client.training.CreateRun(request))
    assert "draws for one process" in violations(error)["recipe.reference_order"]


async def test_zero_stands_for_the_default_where_it_says_so(client: Client, session: str) -> None:
    request = order(session, "exit 0")
    request.recipe.prior_preservation.CopyFrom(prior(num_class_images=0))
    run = await client.training.CreateRun(request)
    assert run.recipe.prior_preservation.num_class_images == 100
    await watched(client, run.name)


async def test_prodigy_takes_the_rate_that_others_must_not_have(client: Client, session: str) -> None:
    request = order(session, "exit 0")
    request.recipe.optimizer = pb.OPTIMIZER_PRODIGY
    request.recipe.unet.learning_rate = 1
    run = await client.training.CreateRun(request)
    assert run.recipe.unet.learning_rate == 1
    await watched(client, run.name)


class TestPictures:
    """Files that people have among their photos."""

    @pytest.mark.parametrize(
        ("filename", "data", "why"),
        [
            ("cut.png", encoded(Image.effect_noise((64, 64), 90))[:2000], "IMAGE_UNREADABLE"),
            ("pixel.png", encoded(Image.new("RGB", (1, 1))), "IMAGE_TOO_SMALL"),
            ("none.png", b"", "IMAGE_UNREADABLE"),
            ("words.png", b"these are words", "IMAGE_UNREADABLE"),
            (".DS_Store", b"\0\0\0\1Bud1", "INVALID_NAME"),
            ("folder/one.png", encoded(Image.new("RGB", (64, 64))), "INVALID_NAME"),
            ("notes.txt", b"these are words", "FILE_NAME_UNSUPPORTED"),
        ],
    )
    async def test_uploads_that_are_no_photos(
        self, client: Client, session: str, store: ObjectStore, filename: str, data: bytes, why: str
    ) -> None:
        error = await refused(client, store, upload(client, session, filename, data))
        assert (error.code(), reason(error)) == (INVALID, why)

    async def test_hidden_files_and_folders_are_no_part_of_a_session(
        self, client: Client, session: str, store: ObjectStore, photo: bytes
    ) -> None:
        strays = [f"{session}/instance_images/{path}" for path in (".DS_Store", ".thumbs/one.png", ".git/HEAD")]
        strays += [f"{session}/captions/.DS_Store"]
        for key in strays:
            store.put(key, b"\0\0\0\1Bud1")
        listed = await client.sessions.ListImages(session_pb.ListImagesRequest(parent=session))
        assert [image.name for image in listed.images] == [f"{session}/images/one.png"]
        run = await client.training.CreateRun(order(session, "exit 0"))
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED
        assert set(strays) <= set(content(store))

    @pytest.mark.parametrize("filename", ["notes.txt", "photo.bmp", "no-ending", "x" * 201 + ".png"])
    async def test_other_files_put_there_by_hand_are_named(
        self, client: Client, session: str, store: ObjectStore, filename: str
    ) -> None:
        store.put(f"{session}/instance_images/{filename}", b"words")
        error = await refused(client, store, client.training.CreateRun(order(session)))
        assert (error.code(), reason(error)) == (PRECONDITION, "FILES_UNUSABLE")
        assert filename in (error.details() or "")

    async def test_no_images(self, client: Client, store: ObjectStore) -> None:
        wanted = session_pb.Session(base_model="sd15-tiny")
        await client.sessions.CreateSession(session_pb.CreateSessionRequest(session_id="empty", session=wanted))
        error = await refused(client, store, client.training.CreateRun(order("sessions/empty")))
        assert (error.code(), reason(error)) == (PRECONDITION, "SESSION_EMPTY")

    async def test_captions(self, client: Client, session: str, store: ObjectStore, photo: bytes) -> None:
        request = order(session, "exit 0")
        request.recipe.use_captions = request.recipe.require_captions = True
        await upload(client, session, "two.png", photo)
        store.put(f"{session}/captions/one.txt", b"a robot")
        for blank in (None, b"", b" \n "):
            if blank is not None:
                store.put(f"{session}/captions/two.txt", blank)
            error = await refused(client, store, client.training.CreateRun(request))
            assert (error.code(), reason(error)) == (PRECONDITION, "CAPTION_MISSING")
            assert "two.png" in (error.details() or "")
            assert "one.png" not in (error.details() or "")
        store.put(f"{session}/captions/two.txt", "ein Roboter im Grünen".encode("latin-1"))
        error = await refused(client, store, client.training.CreateRun(request))
        assert (error.code(), reason(error)) == (PRECONDITION, "CAPTION_INVALID")
        store.put(f"{session}/captions/two.txt", b"a robot")
        store.put(f"{session}/captions/three.txt", b"a ghost")
        error = await refused(client, store, client.training.CreateRun(request))
        assert (error.code(), reason(error)) == (PRECONDITION, "CAPTION_WITHOUT_IMAGE")
        store.delete(f"{session}/captions/three.txt")
        run = await client.training.CreateRun(request)
        assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED


class TestBaseModels:
    """What cannot be trained is refused before anything starts, with the name of what is missing."""

    @pytest.fixture
    def models(self, tiny_models: Path, tmp_path: Path) -> Path:
        """A folder with a base model "mine" of links to the tiny one, so that a test can change it."""
        source, target = tiny_models / "sd15-tiny", tmp_path / "models" / "mine"
        for path in source.rglob("*"):
            if path.is_file():
                link = target / path.relative_to(source)
                link.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, link) if path.stat().st_dev == tmp_path.stat().st_dev else link.symlink_to(path)
        return tmp_path / "models"

    async def attempt(
        self, config: TrainerConfig, models: Path, store: ObjectStore, photo: bytes
    ) -> grpc.aio.AioRpcError:
        async with serving(replace(config, models=str(models))) as client:
            wanted = session_pb.Session(base_model="mine")
            made = await client.sessions.CreateSession(
                session_pb.CreateSessionRequest(session_id="robot", session=wanted)
            )
            await upload(client, made.name, "one.png", photo)
            return await refused(client, store, client.training.CreateRun(order(made.name)))

    async def test_without_weights(self, config: TrainerConfig, models: Path, store: ObjectStore, photo: bytes) -> None:
        (models / "mine" / "unet" / "diffusion_pytorch_model.safetensors").unlink()
        error = await self.attempt(config, models, store, photo)
        assert (error.code(), reason(error)) == (PRECONDITION, "BASE_MODEL_UNSUPPORTED")
        assert "'mine'" in (error.details() or "")
        assert "lacks unet/diffusion_pytorch_model.safetensors" in (error.details() or "")

    async def test_with_weights_that_are_cut_off(
        self, config: TrainerConfig, models: Path, store: ObjectStore, photo: bytes
    ) -> None:
        weights = models / "mine" / "unet" / "diffusion_pytorch_model.safetensors"
        start = weights.read_bytes()[:-1]
        weights.unlink()
        weights.write_bytes(start)
        error = await self.attempt(config, models, store, photo)
        assert "its header speaks of" in (error.details() or "")

    @pytest.mark.parametrize(
        ("path", "change", "found"),
        [
            ("model_index.json", {"_class_name": "StableDiffusionXLPipeline"}, "StableDiffusionXLPipeline"),
            ("unet/config.json", {"cross_attention_dim": 2048}, "2048 wide"),
            ("unet/config.json", {"cross_attention_dim": 1024}, "hidden_size of text_encoder/config.json is 768"),
        ],
    )
    async def test_of_another_architecture(
        self,
        config: TrainerConfig,
        models: Path,
        store: ObjectStore,
        photo: bytes,
        path: str,
        change: dict[str, object],
        found: str,
    ) -> None:
        changed = models / "mine" / path
        record = {**json.loads(changed.read_bytes()), **change}
        changed.unlink()
        changed.write_text(json.dumps(record))
        error = await self.attempt(config, models, store, photo)
        assert (error.code(), reason(error)) == (PRECONDITION, "BASE_MODEL_UNSUPPORTED")
        assert found in (error.details() or "")


NUM_IMAGES = 10_000


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_ten_thousand_images(client: Client, session: str, store: ObjectStore, photo: bytes) -> None:
    keys = [f"{session}/instance_images/{number:05}.png" for number in range(1, NUM_IMAGES)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, photo, "image/png"), keys))
    counted = await client.sessions.GetSession(session_pb.GetSessionRequest(name=session))
    assert counted.num_images == NUM_IMAGES
    names, token = [], ""
    for _ in range(2):
        request = session_pb.ListImagesRequest(parent=session, page_size=1000, page_token=token)
        page = await client.sessions.ListImages(request, timeout=60)
        names += [image.name.rsplit("/", 1)[1] for image in page.images]
        token = page.next_page_token
    assert names == [f"{number:05}.png" for number in range(1, 2001)]
    run = await client.training.CreateRun(order(session, "exit 0"), timeout=60)
    assert (await watched(client, run.name))[-1].run.state == pb.RUN_STATE_SUCCEEDED
