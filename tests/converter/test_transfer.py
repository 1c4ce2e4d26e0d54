"""Conversions there and back through a real store: every value, the proof, and the memory it takes."""

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.errors import AlreadyExists, DigestMismatch, NotFound
from artifacts.store import ObjectStore
from converter.errors import PrecisionOverflow, ProofFailed
from converter.safetensors_format import build_header

Files = dict[str, bytes]
Publish = Callable[..., Manifest]
Convert = Callable[..., Manifest]
TensorsOf = Callable[[str, str], dict[str, bytes]]

WEIGHTS = (
    "unet/diffusion_pytorch_model.safetensors",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


@pytest.mark.parametrize("target", ["safetensors", "ckpt"])
def test_there_and_back_is_equal_tensor_by_tensor(
    target: str, publish: Publish, convert: Convert, tensors_of: TensorsOf, micro_files: Files, checkpoints: Checkpoints
) -> None:
    publish("toy", micro_files)
    single = convert("toy", target)
    back = convert(f"toy.{target}", "diffusers")
    for path in WEIGHTS:
        assert tensors_of(back.id, path) == tensors_of("toy", path)
    assert single.metrics["tensors_sha256"] == back.metrics["tensors_sha256"]
    assert single.metrics["num_tensors"] == len([name for path in WEIGHTS for name in tensors_of("toy", path)])
    lent = {path for path in micro_files if path not in WEIGHTS and path != "model_index.json"}
    assert {entry.path for entry in back.files} == {*lent, *WEIGHTS, "model_index.json"}
    assert all(checkpoints.read_file(back, path) == micro_files[path] for path in lent)


def test_single_files_convert_into_each_other(
    publish: Publish, convert: Convert, tensors_of: TensorsOf, micro_files: Files
) -> None:
    publish("toy", micro_files)
    convert("toy", "safetensors")
    convert("toy.safetensors", "ckpt")
    convert("toy.safetensors.ckpt", "safetensors", "", "again")
    assert tensors_of("again", "model.safetensors") == tensors_of("toy.safetensors", "model.safetensors")


def test_the_result_says_where_it_comes_from(publish: Publish, convert: Convert, micro_files: Files) -> None:
    publish("toy", micro_files, kind="dreambooth", session="dog", run="r1", title="Dog", resolution=512)
    made = convert("toy", "safetensors")
    assert (made.format, made.architecture, made.kind, made.precision) == ("safetensors", "sd15", "dreambooth", "fp16")
    assert (made.session, made.run, made.title, made.resolution) == ("dog", "r1", "Dog", 512)
    assert made.parents == ("toy",)
    assert made.prediction_type == "epsilon"
    assert [entry.path for entry in made.files] == ["model.safetensors"]


def test_equal_models_give_equal_bytes(publish: Publish, convert: Convert, micro_files: Files) -> None:
    publish("toy", micro_files)
    for target in ("safetensors", "ckpt"):
        first, second = convert("toy", target, "", "first-" + target), convert("toy", target, "", "second-" + target)
        assert first.files == second.files


def test_a_change_of_precision_keeps_the_values(
    publish: Publish, convert: Convert, tensors_of: TensorsOf, micro_files: Files
) -> None:
    publish("toy", micro_files)
    wide = convert("toy", "safetensors", "fp32", "wide")
    convert("wide", "diffusers", "fp16", "narrow")
    assert wide.precision == "fp32"
    assert wide.size_bytes > 1.9 * sum(len(micro_files[path]) for path in WEIGHTS)
    for path in WEIGHTS:
        assert tensors_of("narrow", path) == tensors_of("toy", path)


def test_position_ids_are_exact_integers_in_any_precision(
    publish: Publish, convert: Convert, tensors_of: TensorsOf, micro_files: Files
) -> None:
    publish("toy", micro_files)
    convert("toy", "safetensors", "bf16", "brain")
    ids = tensors_of("brain", "model.safetensors")["cond_stage_model.transformer.text_model.embeddings.position_ids"]
    assert [int.from_bytes(ids[at : at + 8], "little") for at in range(0, len(ids), 8)] == list(range(77))


def test_values_too_large_for_fp16_stop_the_conversion(
    publish: Publish,
    convert: Convert,
    micro_arrays: Any,
    folder_files: Callable[..., Files],
    checkpoints: Checkpoints,
) -> None:
    large = {
        part: {name: value.astype("<f4") for name, value in values.items()} for part, values in micro_arrays.items()
    }
    large["vae"]["quant_conv.bias"][3] = 1e6
    publish("toy", folder_files(large), precision="fp32")
    with pytest.raises(PrecisionOverflow, match=r"1 values of 'vae\.quant_conv\.bias'"):
        convert("toy", "safetensors", "fp16", "narrow")
    with pytest.raises(NotFound):
        checkpoints.get("narrow")


def flip_byte(store: ObjectStore, key: str, position: int) -> None:
    data = bytearray(store.get(key))
    data[position] ^= 1
    store.put(key, bytes(data))


@pytest.mark.parametrize("position", [-1, -100_000])
def test_a_flipped_byte_in_the_source_is_found(
    position: int, publish: Publish, convert: Convert, micro_files: Files, checkpoints: Checkpoints, store: ObjectStore
) -> None:
    toy = publish("toy", micro_files)
    flip_byte(store, checkpoints.key(toy, WEIGHTS[0]), position)
    with pytest.raises(DigestMismatch, match="toy/unet/diffusion_pytorch_model"):
        convert("toy", "ckpt")
    with pytest.raises(NotFound):
        checkpoints.get("toy.ckpt")
    assert [stat.key for stat in store.list("checkpoints/toy.ckpt/")] == []


def test_a_store_that_changes_what_it_was_given_is_found(
    publish: Publish, convert: Convert, micro_files: Files, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof reads the result back; here the result is damaged after it was uploaded."""
    from converter import transfer

    publish("toy", micro_files)
    prove = transfer._prove

    def damage_first(checkpoints: Checkpoints, draft: Manifest, *rest: Any) -> None:
        flip_byte(checkpoints.store, checkpoints.key(draft, "model.safetensors"), -1)
        prove(checkpoints, draft, *rest)

    monkeypatch.setattr(transfer, "_prove", damage_first)
    with pytest.raises((ProofFailed, DigestMismatch)):
        convert("toy", "safetensors")
    with pytest.raises(NotFound):
        checkpoints.get("toy.safetensors")


def test_an_id_that_is_taken_is_left_alone(publish: Publish, convert: Convert, micro_files: Files) -> None:
    publish("toy", micro_files)
    publish("other", micro_files)
    with pytest.raises(AlreadyExists):
        convert("toy", "safetensors", "", "other")


LIMIT_BYTES = 128 * 1024**2
CONVERSIONS = [  # source, format, precision: every direction, and the changes of precision, which need the most
    ("large", "safetensors", ""),
    ("large", "ckpt", "bf16"),
    ("large.safetensors", "diffusers", ""),
    ("large.ckpt", "diffusers", "fp16"),
]
CHILD = r"""
import json, os, re, sys
from artifacts.checkpoints import Checkpoints
from artifacts.store import ObjectStore, StoreConfig
from converter import plan, server, transfer  # server: with everything that the service has in memory
class Idle:
    def wrote(self, n): ...
    def wrote_tensor(self): ...
    def checked(self): ...
    def proved_tensor(self): ...
    def before_publishing(self): ...
checkpoints = Checkpoints(ObjectStore(StoreConfig(**json.loads(os.environ["STORE"]))))
for source, target, precision in json.loads(sys.argv[1]):
    work = plan.make(checkpoints, checkpoints.get(source), target, precision)
    made = transfer.convert(checkpoints, work, f"{source}.{target}", {}, Idle())
    # Not getrusage: its maximum counts what the parent had before exec.
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", open("/proc/self/status").read())
    print(made.size_bytes, made.metrics["num_tensors"], int(peak) * 1024)
"""


def publish_large(checkpoints: Checkpoints, large: Any) -> Manifest:
    """A Diffusers folder in fp16 of which nothing but one block was ever in memory."""
    block = bytes(range(64)) * (1 << 14)  # no exponent that fp16 or bf16 could not hold
    fields = {"architecture": "sd15", "kind": "base", "precision": "fp16", "prediction_type": "epsilon"}
    with checkpoints.begin("large", format="diffusers", resolution=512, base_model="", **fields) as writer:
        for path, shapes in zip(WEIGHTS, large.shapes.values(), strict=True):
            with writer.open(path) as file:
                file.write(build_header([(name, "F16", shape) for name, shape in shapes.items()], {"format": "pt"}))
                left = 2 * sum(map(math.prod, shapes.values()))
                while left:
                    left -= file.write(block[:left])
        for path, data in large.configs().items():
            writer.add_bytes(path, data)
        return writer.publish()


def test_memory_stays_below_the_limit_for_a_large_model(
    checkpoints: Checkpoints, sizes: Callable[..., Any], store: ObjectStore
) -> None:
    """206 MB of fp16, 76 MB of them one tensor, in a process that holds what the service holds."""
    large = sizes(unet=(96, 160, 320, 320), vae=(32, 64, 64, 96), text=768, vocabulary=49_408, layers=1, inner=1024)
    assert publish_large(checkpoints, large).size_bytes > 1.5 * LIMIT_BYTES
    config = {name: getattr(store.config, name) for name in ("endpoint", "access_key", "secret_key", "bucket")}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(CONVERSIONS)],
        env=os.environ | {"STORE": json.dumps(config), "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    lines = child.stdout.splitlines()
    assert len(lines) == len(CONVERSIONS)
    for conversion, line in zip(CONVERSIONS, lines, strict=True):
        size_bytes, num_tensors, peak_bytes = map(int, line.split())
        assert size_bytes > 1.5 * LIMIT_BYTES
        assert num_tensors == sum(map(len, large.shapes.values()))
        print(f"{conversion}: peak memory so far {peak_bytes / 1024**2:.0f} MiB")
        assert peak_bytes < LIMIT_BYTES, f"{conversion}: {peak_bytes / 1024**2:.0f} MiB"
