"""Fixtures of the converter tests: SD1.5 models of any width made without torch, a running service, failed calls.

The shapes are written down here from diffusers' block structure, independently of the converter's own table;
`test_sd15_keys` compares them with diffusers itself.
"""

import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from artifacts.checkpoints import Checkpoints, Manifest
from artifacts.store import ObjectStore, StoreConfig
from chassis import client
from chassis.config import ServerConfig
from chassis.testing import running
from converter.config import ConverterConfig
from converter.server import build
from darkroom.converter.v1 import converter_pb2 as pb
from darkroom.converter.v1.converter_pb2_grpc import ConverterServiceStub
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from safetensors.numpy import save

Shapes = dict[str, tuple[int, ...]]
TOKEN = "a-token-of-the-tests"


def _layer(shapes: Shapes, name: str, *weight: int) -> None:
    shapes[f"{name}.weight"] = weight
    shapes[f"{name}.bias"] = weight[:1]


def _resnet(shapes: Shapes, name: str, given: int, made: int, time: int = 0) -> None:
    _layer(shapes, f"{name}.norm1", given)
    _layer(shapes, f"{name}.conv1", made, given, 3, 3)
    if time:
        _layer(shapes, f"{name}.time_emb_proj", made, time)
    _layer(shapes, f"{name}.norm2", made)
    _layer(shapes, f"{name}.conv2", made, made, 3, 3)
    if given != made:
        _layer(shapes, f"{name}.conv_shortcut", made, given, 1, 1)


def _transformer(shapes: Shapes, name: str, width: int, context: int) -> None:
    block = f"{name}.transformer_blocks.0"
    _layer(shapes, f"{name}.norm", width)
    _layer(shapes, f"{name}.proj_in", width, width, 1, 1)
    _layer(shapes, f"{name}.proj_out", width, width, 1, 1)
    for attention, keys in (("attn1", width), ("attn2", context)):
        shapes[f"{block}.{attention}.to_q.weight"] = (width, width)
        shapes[f"{block}.{attention}.to_k.weight"] = (width, keys)
        shapes[f"{block}.{attention}.to_v.weight"] = (width, keys)
        _layer(shapes, f"{block}.{attention}.to_out.0", width, width)
    for norm in ("norm1", "norm2", "norm3"):
        _layer(shapes, f"{block}.{norm}", width)
    _layer(shapes, f"{block}.ff.net.0.proj", 8 * width, width)
    _layer(shapes, f"{block}.ff.net.2", width, 4 * width)


def unet_shapes(widths: tuple[int, ...], context: int = 768) -> Shapes:
    """UNet2DConditionModel of SD1.5, without a component in front."""
    shapes: Shapes = {}
    first, time = widths[0], 4 * widths[0]
    _layer(shapes, "conv_in", first, 4, 3, 3)
    _layer(shapes, "time_embedding.linear_1", time, first)
    _layer(shapes, "time_embedding.linear_2", time, time)
    skips, width = [first], first
    for level, made in enumerate(widths):
        for layer in range(2):
            _resnet(shapes, f"down_blocks.{level}.resnets.{layer}", width, made, time)
            if level < 3:
                _transformer(shapes, f"down_blocks.{level}.attentions.{layer}", made, context)
            width = made
            skips.append(width)
        if level < 3:
            _layer(shapes, f"down_blocks.{level}.downsamplers.0.conv", width, width, 3, 3)
            skips.append(width)
    _resnet(shapes, "mid_block.resnets.0", width, width, time)
    _transformer(shapes, "mid_block.attentions.0", width, context)
    _resnet(shapes, "mid_block.resnets.1", width, width, time)
    for level, made in enumerate(reversed(widths)):
        for layer in range(3):
            _resnet(shapes, f"up_blocks.{level}.resnets.{layer}", width + skips.pop(), made, time)
            width = made
            if level > 0:
                _transformer(shapes, f"up_blocks.{level}.attentions.{layer}", made, context)
        if level < 3:
            _layer(shapes, f"up_blocks.{level}.upsamplers.0.conv", width, width, 3, 3)
    _layer(shapes, "conv_norm_out", width)
    _layer(shapes, "conv_out", 4, width, 3, 3)
    return shapes


def _vae_middle(shapes: Shapes, half: str, width: int) -> None:
    _resnet(shapes, f"{half}.mid_block.resnets.0", width, width)
    _resnet(shapes, f"{half}.mid_block.resnets.1", width, width)
    _layer(shapes, f"{half}.mid_block.attentions.0.group_norm", width)
    for matrix in ("to_q", "to_k", "to_v", "to_out.0"):
        _layer(shapes, f"{half}.mid_block.attentions.0.{matrix}", width, width)


def vae_shapes(widths: tuple[int, ...]) -> Shapes:
    """AutoencoderKL of SD1.5."""
    shapes: Shapes = {}
    _layer(shapes, "quant_conv", 8, 8, 1, 1)
    _layer(shapes, "post_quant_conv", 4, 4, 1, 1)
    width = widths[0]
    _layer(shapes, "encoder.conv_in", width, 3, 3, 3)
    for level, made in enumerate(widths):
        for layer in range(2):
            _resnet(shapes, f"encoder.down_blocks.{level}.resnets.{layer}", width, made)
            width = made
        if level < 3:
            _layer(shapes, f"encoder.down_blocks.{level}.downsamplers.0.conv", width, width, 3, 3)
    _vae_middle(shapes, "encoder", width)
    _layer(shapes, "encoder.conv_norm_out", width)
    _layer(shapes, "encoder.conv_out", 8, width, 3, 3)
    _layer(shapes, "decoder.conv_in", width, 4, 3, 3)
    _vae_middle(shapes, "decoder", width)
    for level, made in enumerate(reversed(widths)):
        for layer in range(3):
            _resnet(shapes, f"decoder.up_blocks.{level}.resnets.{layer}", width, made)
            width = made
        if level < 3:
            _layer(shapes, f"decoder.up_blocks.{level}.upsamplers.0.conv", width, width, 3, 3)
    _layer(shapes, "decoder.conv_norm_out", width)
    _layer(shapes, "decoder.conv_out", 3, width, 3, 3)
    return shapes


def text_shapes(width: int, vocabulary: int, layers: int, inner: int) -> Shapes:
    """CLIPTextModel, with the classic nested names."""
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (vocabulary, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
    }
    for index in range(layers):
        layer = f"text_model.encoder.layers.{index}"
        for matrix in ("q_proj", "k_proj", "v_proj", "out_proj"):
            _layer(shapes, f"{layer}.self_attn.{matrix}", width, width)
        _layer(shapes, f"{layer}.layer_norm1", width)
        _layer(shapes, f"{layer}.layer_norm2", width)
        _layer(shapes, f"{layer}.mlp.fc1", inner, width)
        _layer(shapes, f"{layer}.mlp.fc2", width, inner)
    _layer(shapes, "text_model.final_layer_norm", width)
    return shapes


@dataclass(frozen=True)
class Sizes:
    """How wide a model is. The defaults make 1.3 MB in fp16."""

    unet: tuple[int, ...] = (8, 16, 24, 32)
    vae: tuple[int, ...] = (4, 8, 8, 12)
    text: int = 16
    vocabulary: int = 64
    layers: int = 2
    inner: int = 32

    @property
    def shapes(self) -> dict[str, Shapes]:
        """By component."""
        return {
            "unet": unet_shapes(self.unet),
            "vae": vae_shapes(self.vae),
            "text_encoder": text_shapes(self.text, self.vocabulary, self.layers, self.inner),
        }

    def configs(self, prediction_type: str = "epsilon") -> dict[str, bytes]:
        """The small files of the folder."""
        listed = {
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "scheduler": ["diffusers", "PNDMScheduler"],
            "safety_checker": [None, None],
        }
        text = {"vocab_size": self.vocabulary, "hidden_size": self.text, "num_hidden_layers": self.layers}
        records: dict[str, Any] = {
            "model_index.json": {"_class_name": "StableDiffusionPipeline"} | listed,
            "unet/config.json": {"block_out_channels": list(self.unet), "cross_attention_dim": 768},
            "vae/config.json": {"block_out_channels": list(self.vae), "latent_channels": 4},
            "text_encoder/config.json": text,
            "scheduler/scheduler_config.json": {"prediction_type": prediction_type},
            "tokenizer/vocab.json": {"a</w>": 0},
            "tokenizer/merges.txt": "#version: 0.2",
        }
        return {path: json.dumps(record).encode() for path, record in records.items()}


WEIGHT_PATHS = {
    "unet": "unet/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}
Arrays = dict[str, dict[str, Any]]
Files = dict[str, bytes]


@pytest.fixture(scope="session")
def sizes() -> type[Sizes]:
    return Sizes


@pytest.fixture(scope="session")
def micro_arrays() -> Arrays:
    """Random values of a very small model in fp16, by component and name. Not to be changed."""
    random = np.random.default_rng(15)
    return {
        component: {name: random.standard_normal(shape).astype(np.float16) for name, shape in shapes.items()}
        for component, shapes in Sizes().shapes.items()
    }


@pytest.fixture(scope="session")
def folder_files() -> Callable[..., Files]:
    """`folder_files(arrays, prediction_type="epsilon")`: the files of a Diffusers folder with these values."""

    def make(arrays: Arrays, prediction_type: str = "epsilon") -> Files:
        weights = {WEIGHT_PATHS[component]: save(values, {"format": "pt"}) for component, values in arrays.items()}
        return Sizes().configs(prediction_type) | weights

    return make


@pytest.fixture(scope="session")
def micro_files(micro_arrays: Arrays, folder_files: Callable[..., Files]) -> Files:
    return folder_files(micro_arrays)


FIELDS: Mapping[str, Any] = {
    "format": "diffusers",
    "architecture": "sd15",
    "kind": "base",
    "precision": "fp16",
    "prediction_type": "epsilon",
    "resolution": 64,
    "base_model": "micro",
}


@pytest.fixture
def checkpoints(store: ObjectStore) -> Checkpoints:
    return Checkpoints(store)


@pytest.fixture
def publish(checkpoints: Checkpoints) -> Callable[..., Manifest]:
    """`publish(id, files or folder, **fields)`: a published checkpoint."""

    def make(checkpoint_id: str, content: Files | Path, **fields: Any) -> Manifest:
        with checkpoints.begin(checkpoint_id, **(FIELDS | fields)) as writer:
            if isinstance(content, Path):
                for path in sorted(content.rglob("*")):
                    if path.is_file():
                        writer.add_file(str(path.relative_to(content)), path)
            else:
                for name, data in content.items():
                    writer.add_bytes(name, data)
            return writer.publish()

    return make


class Idle:
    """Progress that nobody looks at."""

    def wrote(self, num_bytes: int) -> None: ...
    def wrote_tensor(self) -> None: ...
    def checked(self) -> None: ...
    def proved_tensor(self) -> None: ...
    def before_publishing(self) -> None: ...


@pytest.fixture
def convert(checkpoints: Checkpoints) -> Callable[..., Manifest]:
    """`convert(source, format, precision="", id="")`: a conversion without service, plan and transfer alone."""
    from converter import plan, transfer

    def run(source: str, target: str, precision: str = "", checkpoint_id: str = "") -> Manifest:
        work = plan.make(checkpoints, checkpoints.get(source), target, precision)
        return transfer.convert(checkpoints, work, checkpoint_id or f"{source}.{target}", {}, Idle())

    return run


@pytest.fixture
def tensors_of(checkpoints: Checkpoints) -> Callable[[str, str], dict[str, bytes]]:
    """`tensors_of(id, path)`: the values of each tensor of a .safetensors file, read without the converter."""

    def read(checkpoint_id: str, path: str) -> dict[str, bytes]:
        data = checkpoints.read_file(checkpoint_id, path)
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        values = memoryview(data)[8 + length :]
        return {name: bytes(values[slice(*entry["data_offsets"])]) for name, entry in header.items()}

    return read


class Failure:
    """A failed call as its caller sees it."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.status = rpc_status.from_call(error)

    def detail(self, kind: Any) -> Any:
        for packed in self.status.details if self.status else ():
            message = kind()
            if packed.Unpack(message):
                return message
        return None

    @property
    def reason(self) -> str:
        return str(self.detail(error_details_pb2.ErrorInfo).reason)


@pytest.fixture
def failure() -> Callable[[Any], Any]:
    """`await failure(call)`: the Failure of a call that must fail."""

    async def of(call: Any) -> Failure:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        return Failure(caught.value)

    return of


@pytest.fixture
def serve(store: ObjectStore) -> Callable[..., Any]:
    """`async with serve(store_config=...) as stub`: a running converter on the test's bucket."""

    @asynccontextmanager
    async def run(store_config: StoreConfig | None = None) -> AsyncIterator[ConverterServiceStub]:
        config = ConverterConfig(ServerConfig(token=TOKEN), store_config or store.config)
        server, service = build(config)
        async with running(server, serving=False) as target, client.channel(target, TOKEN) as channel:
            await service.load()
            await server.set_serving()
            try:
                yield ConverterServiceStub(channel)
            finally:
                await service.close()

    return run


@pytest.fixture
def ended() -> Callable[..., Any]:
    """`await ended(stub, conversion)`: the last message of WatchConversion."""

    async def wait(stub: ConverterServiceStub, conversion: pb.Conversion) -> pb.Conversion:
        states = [state async for state in stub.WatchConversion(pb.WatchConversionRequest(name=conversion.name))]
        return states[-1]

    return wait
