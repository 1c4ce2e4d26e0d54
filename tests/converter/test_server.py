"""ConverterService as a client sees it: real gRPC, real store."""

import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import NotFound
from artifacts.store import ObjectStore
from darkroom.converter.v1 import converter_pb2 as pb
from google.rpc import error_details_pb2

Files = dict[str, bytes]
Publish = Callable[..., Manifest]


def wanted(source: str = "toy", target: int = pb.FORMAT_SAFETENSORS, **fields: Any) -> pb.CreateConversionRequest:
    return pb.CreateConversionRequest(source=f"checkpoints/{source}", format=target, **fields)  # type: ignore[arg-type]


@pytest.fixture
def toy(publish: Publish, micro_files: Files) -> Manifest:
    return publish("toy", micro_files)


async def test_inspect_reads_headers_alone(serve: Any, toy: Manifest, micro_arrays: Any) -> None:
    async with serve() as stub:
        found = await stub.Inspect(pb.InspectRequest(checkpoint="checkpoints/toy"))
    assert found.format == pb.FORMAT_DIFFUSERS
    assert found.architecture == "sd15"
    assert found.precision == pb.PRECISION_FP16
    assert found.prediction_type == "epsilon"
    assert found.num_tensors == sum(map(len, micro_arrays.values()))
    assert found.num_bytes == sum(value.nbytes for values in micro_arrays.values() for value in values.values())
    assert set(found.components) == {"unet", "vae", "text_encoder", "tokenizer", "scheduler"}
    assert not found.missing
    assert not found.unexpected
    assert 0 < found.num_bytes_read < 130_000


async def test_inspect_names_what_is_missing_and_unexpected(
    serve: Any, publish: Publish, micro_arrays: Any, folder_files: Callable[..., Files]
) -> None:
    unet = dict(micro_arrays["unet"])
    del unet["conv_in.bias"]
    unet["stranger.weight"] = micro_arrays["unet"]["conv_out.bias"]
    publish("odd", folder_files(micro_arrays | {"unet": unet}))
    async with serve() as stub:
        found = await stub.Inspect(pb.InspectRequest(checkpoint="checkpoints/odd"))
    assert list(found.missing) == ["unet.conv_in.bias"]
    assert list(found.unexpected) == ["unet.stranger.weight"]


async def test_inspect_a_single_file_in_the_bucket(
    serve: Any, ended: Any, toy: Manifest, checkpoints: Checkpoints, store: ObjectStore
) -> None:
    async with serve() as stub:
        for target, key in ((pb.FORMAT_SAFETENSORS, "models/a.bin"), (pb.FORMAT_CKPT, "models/b.bin")):
            made = await ended(stub, await stub.CreateConversion(wanted(target=target)))
            manifest = checkpoints.get(made.checkpoint.partition("/")[2])
            store.put(key, checkpoints.read_file(manifest, manifest.files[0].path))
            found = await stub.Inspect(pb.InspectRequest(object=key))
            assert found.format == target  # by content, whatever the name
            assert (found.architecture, found.precision) == ("sd15", pb.PRECISION_FP16)
            assert not found.missing
            assert not found.unexpected
            assert found.num_bytes_read < 300_000
    assert found.metadata["global_step"] == "0"


class Hostile:
    """Pickles as a call of os.system that would make `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def bare_pickle(value: Any) -> bytes:
    return pickle.dumps(value, 2)


def zipped_pickle(value: Any) -> bytes:
    """A .ckpt of this state dict, as torch packs it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", bare_pickle({"state_dict": value}))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.parametrize("pack", [bare_pickle, zipped_pickle])
async def test_a_hostile_pickle_is_refused_by_name_and_the_service_lives(
    pack: Callable[[Any], bytes],
    serve: Any,
    failure: Any,
    toy: Manifest,
    publish: Publish,
    store: ObjectStore,
    tmp_path: Path,
) -> None:
    marker = tmp_path / "executed"
    data = pack({"weight": Hostile(marker)})
    store.put("models/evil.ckpt", data)
    publish("evil", {"model.ckpt": data}, format="ckpt", parents=("toy",))
    async with serve() as stub:
        for call in (
            stub.Inspect(pb.InspectRequest(object="models/evil.ckpt")),
            stub.Inspect(pb.InspectRequest(checkpoint="checkpoints/evil")),
            stub.CreateConversion(wanted("evil")),
            stub.CreateConversion(wanted("evil", pb.FORMAT_DIFFUSERS)),
        ):
            error = await failure(call)
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNSAFE_PICKLE")
            assert error.detail(error_details_pb2.ErrorInfo).metadata["refused"] == "posix.system"
        assert not marker.exists()
        assert not (await stub.ListConversions(pb.ListConversionsRequest())).conversions
        assert (await stub.Inspect(pb.InspectRequest(checkpoint="checkpoints/toy"))).architecture == "sd15"


@pytest.mark.parametrize(
    "data", [b"", b"not a checkpoint at all", b"PK\x03\x04" + bytes(100), b"\xff" * 7 + b"\x7f{" + bytes(50)]
)
async def test_a_file_that_is_no_checkpoint_is_refused(
    data: bytes, serve: Any, failure: Any, store: ObjectStore
) -> None:
    store.put("models/x", data)
    async with serve() as stub:
        error = await failure(stub.Inspect(pb.InspectRequest(object="models/x")))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CHECKPOINT_MALFORMED")
    assert "models/x" in error.message


async def test_what_is_not_there(serve: Any, failure: Any) -> None:
    async with serve() as stub:
        for call in (
            stub.Inspect(pb.InspectRequest(checkpoint="checkpoints/nothing")),
            stub.Inspect(pb.InspectRequest(object="models/nothing")),
            stub.CreateConversion(wanted("nothing")),
            stub.GetConversion(pb.GetConversionRequest(name="conversions/nothing")),
            stub.CancelConversion(pb.CancelConversionRequest(name="conversions/nothing")),
        ):
            error = await failure(call)
            assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
            assert "nothing" in error.message
        with pytest.raises(grpc.aio.AioRpcError, match="nothing"):
            await stub.WatchConversion(pb.WatchConversionRequest(name="conversions/nothing")).read()


async def test_the_whole_life_of_a_conversion(serve: Any, toy: Manifest, checkpoints: Checkpoints) -> None:
    async with serve() as stub:
        created = await stub.CreateConversion(wanted())
        assert created.name == "conversions/toy.safetensors"
        assert created.checkpoint == "checkpoints/toy.safetensors"
        states = [s async for s in stub.WatchConversion(pb.WatchConversionRequest(name=created.name))]
        done = states[-1]
        assert done.state == pb.CONVERSION_STATE_SUCCEEDED
        assert done.num_tensors_proved == done.num_tensors_done == done.num_tensors > 900
        assert done.num_bytes_done == done.num_bytes > 0
        assert done.end_time.ToDatetime() > done.create_time.ToDatetime()
        assert await stub.GetConversion(pb.GetConversionRequest(name=created.name)) == done
    manifest = checkpoints.verify("toy.safetensors")
    assert manifest.metrics["tensors_sha256"] == done.tensors_sha256
    assert manifest.recipe["conversion"]["source"] == "toy"


async def test_asking_again_returns_the_same(serve: Any, ended: Any, toy: Manifest) -> None:
    async with serve() as stub:
        done = await ended(stub, await stub.CreateConversion(wanted()))
        assert await stub.CreateConversion(wanted()) == done
        assert await stub.CreateConversion(wanted(request_id="another")) == done
    async with serve() as stub:  # and after a restart
        assert await stub.CreateConversion(wanted()) == done


async def test_a_deleted_result_is_made_again(serve: Any, ended: Any, toy: Manifest, checkpoints: Checkpoints) -> None:
    async with serve() as stub:
        first = await ended(stub, await stub.CreateConversion(wanted()))
        checkpoints.delete("toy.safetensors")
        second = await ended(stub, await stub.CreateConversion(wanted()))
    assert second.state == pb.CONVERSION_STATE_SUCCEEDED
    assert second.create_time.ToDatetime() > first.create_time.ToDatetime()
    assert second.tensors_sha256 == first.tensors_sha256
    checkpoints.verify("toy.safetensors")


async def test_one_model_has_one_digest_in_all_layouts(serve: Any, ended: Any, toy: Manifest) -> None:
    async with serve() as stub:
        digests = set()
        source = "toy"
        for target in (pb.FORMAT_CKPT, pb.FORMAT_SAFETENSORS, pb.FORMAT_DIFFUSERS):
            done = await ended(stub, await stub.CreateConversion(wanted(source, target)))
            digests.add(done.tensors_sha256)
            source = done.checkpoint.partition("/")[2]
        assert len(digests) == 1
        cast = await ended(stub, await stub.CreateConversion(wanted(precision=pb.PRECISION_FP32)))
        assert cast.checkpoint == "checkpoints/toy-fp32.safetensors"
        assert cast.tensors_sha256 not in digests


async def test_an_id_that_is_taken(
    serve: Any, failure: Any, ended: Any, toy: Manifest, publish: Publish, micro_files: Files
) -> None:
    publish("other", micro_files)
    async with serve() as stub:
        await ended(stub, await stub.CreateConversion(wanted(checkpoint_id="mine")))
        error = await failure(stub.CreateConversion(wanted(target=pb.FORMAT_CKPT, checkpoint_id="mine")))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "CONVERSION_EXISTS")
        assert "safetensors" in error.message
        assert "ckpt" in error.message
        error = await failure(stub.CreateConversion(wanted(checkpoint_id="other")))
        assert (error.code, error.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ALREADY_EXISTS")


async def test_what_cannot_be_converted_is_refused_at_once(
    serve: Any,
    failure: Any,
    toy: Manifest,
    publish: Publish,
    checkpoints: Checkpoints,
    convert: Callable[..., Manifest],
    micro_arrays: Any,
    folder_files: Callable[..., Files],
) -> None:
    single = convert("toy", "safetensors")
    orphan = {"model.safetensors": checkpoints.read_file(single, "model.safetensors")}
    publish("orphan", orphan, format="safetensors")
    half = dict(micro_arrays["vae"])
    del half["quant_conv.bias"]
    publish("half", folder_files(micro_arrays | {"vae": half}))
    unet = {name: value[:, :, :, :] for name, value in micro_arrays["unet"].items() if value.ndim == 4}
    publish("strange", folder_files({"unet": unet}))
    cases = [
        ("toy", pb.FORMAT_DIFFUSERS, {}, "NOT_CONVERTIBLE", "already"),
        ("toy", pb.FORMAT_DIFFUSERS, {"precision": pb.PRECISION_FP16}, "NOT_CONVERTIBLE", "already"),
        ("orphan", pb.FORMAT_DIFFUSERS, {}, "ANCESTOR_MISSING", "parent"),
        ("half", pb.FORMAT_CKPT, {}, "NOT_CONVERTIBLE", "quant_conv.bias"),
        ("strange", pb.FORMAT_CKPT, {}, "NOT_CONVERTIBLE", "unknown"),
    ]
    async with serve() as stub:
        for source, target, fields, reason, text in cases:
            error = await failure(stub.CreateConversion(wanted(source, target, **fields)))
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, reason)
            assert source in error.message
            assert text in error.message
        assert not (await stub.ListConversions(pb.ListConversionsRequest())).conversions


async def test_configuration_that_does_not_fit_is_refused(
    serve: Any,
    failure: Any,
    publish: Publish,
    convert: Callable[..., Manifest],
    toy: Manifest,
    micro_files: Files,
    checkpoints: Checkpoints,
) -> None:
    """A child of a v-prediction folder that says epsilon itself."""
    single = convert("toy", "safetensors")
    config = {"scheduler/scheduler_config.json": b'{"prediction_type": "v_prediction"}'}
    publish("v", micro_files | config, prediction_type="v_prediction")
    data = {"model.safetensors": checkpoints.read_file(single, "model.safetensors")}
    publish("child", data, format="safetensors", parents=("v",))
    async with serve() as stub:
        error = await failure(stub.CreateConversion(wanted("child", pb.FORMAT_DIFFUSERS)))
    assert error.reason == "NOT_CONVERTIBLE"
    assert "prediction_type epsilon" in error.message
    assert "v_prediction" in error.message


UNET = "unet/diffusion_pytorch_model.safetensors"
# Source, file, place of the flipped bit, and the reason of the refusal; "" where headers do not show it.
DAMAGE: dict[str, tuple[str, str, Callable[[bytes], int], str]] = {
    "values of a folder": ("toy", UNET, lambda data: len(data) - 7, ""),
    "metadata of a folder": ("toy", UNET, lambda data: data.index(b'"format"') + 1, ""),
    "name in a folder": ("toy", UNET, lambda data: data.index(b"conv_in.weight"), "NOT_CONVERTIBLE"),
    "configuration": ("toy", "scheduler/scheduler_config.json", lambda data: len(data) - 3, "DIGEST_MISMATCH"),
    "values of a .safetensors": ("toy.safetensors", "model.safetensors", lambda data: len(data) // 2, ""),
    "header of a .safetensors": ("toy.safetensors", "model.safetensors", lambda data: 8, "CHECKPOINT_MALFORMED"),
    "values of a .ckpt": ("toy.ckpt", "model.ckpt", lambda data: data.index(b"PK\x07\x08", len(data) // 2) - 1, ""),
    "checksum in a .ckpt": ("toy.ckpt", "model.ckpt", lambda data: data.rindex(b"PK\x07\x08") + 4, ""),
    "pickle of a .ckpt": ("toy.ckpt", "model.ckpt", lambda data: data.index(b"_rebuild_tensor_v2"), "UNSAFE_PICKLE"),
    "directory of a .ckpt": (
        "toy.ckpt",
        "model.ckpt",
        lambda data: data.rindex(b"PK\x01\x02") + 43,
        "CHECKPOINT_MALFORMED",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_a_flipped_bit_stops_the_conversion_and_nothing_is_published(
    name: str,
    serve: Any,
    ended: Any,
    failure: Any,
    toy: Manifest,
    checkpoints: Checkpoints,
    convert: Callable[..., Manifest],
    store: ObjectStore,
) -> None:
    source, path, place, reason = DAMAGE[name]
    if source != "toy":
        convert("toy", source.partition(".")[2])
    target = pb.FORMAT_CKPT if source == "toy.safetensors" else pb.FORMAT_SAFETENSORS
    key = checkpoints.key(source, path)
    good = store.get(key)
    at = place(good)
    store.put(key, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
    async with serve() as stub:
        creating = stub.CreateConversion(wanted(source, target, checkpoint_id="made"))
        if reason:
            error = await failure(creating)
            assert error.reason == reason
            assert source in error.message
        else:
            done = await ended(stub, await creating)
            assert done.state == pb.CONVERSION_STATE_FAILED
            assert f"DigestMismatch: '{source}/{path}' is damaged" in done.error
        with pytest.raises(NotFound):
            checkpoints.get("made")
        assert not list(store.list("checkpoints/made/"))
        store.put(key, good)
        repeated = await ended(stub, await stub.CreateConversion(wanted(source, target, checkpoint_id="made")))
        assert repeated.state == pb.CONVERSION_STATE_SUCCEEDED


async def test_a_failed_conversion_is_repeated_unless_the_request_is_the_same(
    serve: Any, ended: Any, toy: Manifest, checkpoints: Checkpoints, store: ObjectStore
) -> None:
    key = checkpoints.key(toy, UNET)
    good = store.get(key)
    store.put(key, good[:-1] + b"!")
    async with serve() as stub:
        failed = await ended(stub, await stub.CreateConversion(wanted(request_id="r1")))
        assert failed.state == pb.CONVERSION_STATE_FAILED
        assert await stub.CreateConversion(wanted(request_id="r1")) == failed
        store.put(key, good)
        repeated = await ended(stub, await stub.CreateConversion(wanted(request_id="r2")))
        assert repeated.state == pb.CONVERSION_STATE_SUCCEEDED


async def test_pages_are_newest_first(serve: Any, failure: Any, ended: Any, toy: Manifest) -> None:
    async with serve() as stub:
        for name in ("a", "c", "b"):
            await ended(stub, await stub.CreateConversion(wanted(checkpoint_id=name)))
        first = await stub.ListConversions(pb.ListConversionsRequest(page_size=2))
        assert [one.name for one in first.conversions] == ["conversions/b", "conversions/c"]
        rest = await stub.ListConversions(pb.ListConversionsRequest(page_size=2, page_token=first.next_page_token))
        assert [one.name for one in rest.conversions] == ["conversions/a"]
        assert not rest.next_page_token
        error = await failure(stub.ListConversions(pb.ListConversionsRequest(page_token="nonsense")))
        assert error.code == grpc.StatusCode.INVALID_ARGUMENT


async def test_wrong_requests_are_refused_field_by_field(serve: Any, failure: Any) -> None:
    async with serve() as stub:
        request = pb.CreateConversionRequest(source="../secrets", checkpoint_id="UPPER CASE")
        error = await failure(stub.CreateConversion(request))
    assert error.code == grpc.StatusCode.INVALID_ARGUMENT
    violations = error.detail(error_details_pb2.BadRequest).field_violations
    assert {violation.field for violation in violations} == {"source", "format", "checkpoint_id"}
