"""The model registry: names, hashes, sizes, precisions, and where each model is."""

import pytest
from artifacts.checkpoints import FileEntry, Manifest
from webui_gateway.architectures import BaseModel, Width
from webui_gateway.errors import ModelUnavailable, PrecisionUnsupported, ResolutionUnsupported, UnknownModel
from webui_gateway.models import Listing, ModelRegistry, check_precision, check_size

SHA = "ab" * 32
OTHER = "cd" * 32
TINY = BaseModel("tiny", "sd15", "epsilon", 64, width=Width(768, (32, 64, 96, 128)))


def manifest(name: str, **fields: object) -> Manifest:
    given = {
        "format": "diffusers",
        "architecture": "sd15",
        "kind": "dreambooth",
        "precision": "fp32",
        "prediction_type": "epsilon",
        "resolution": 64,
        "base_model": "tiny",
        "files": (FileEntry("a", 1, SHA),),
    }
    return Manifest(id=name, **{**given, **fields})


@pytest.fixture
def registry() -> ModelRegistry:
    registry = ModelRegistry([TINY])
    line = Listing(f"tiny.safetensors [{SHA[:10]}]", "tiny", SHA, SHA[:10], "/models/tiny.safetensors")
    registry.refresh({"http://a": [line]}, [])
    return registry


@pytest.mark.parametrize(
    "alias",
    [
        "tiny",
        "TINY",
        f"tiny.safetensors [{SHA[:10]}]",
        "tiny.safetensors",
        SHA,
        SHA[:10],
        f"tiny [{SHA[:10]}]",
        "models/tiny",
    ],
)
def test_every_alias_means_the_model(registry: ModelRegistry, alias: str) -> None:
    assert registry.usable(alias).name == "tiny"


def test_an_unknown_name_names_the_nearest(registry: ModelRegistry) -> None:
    with pytest.raises(UnknownModel, match=r"'tinny'.*tiny\.safetensors"):
        registry.find("tinny")


def test_a_known_model_without_weights_is_unavailable(registry: ModelRegistry) -> None:
    assert not registry.find("sdxl").available
    with pytest.raises(ModelUnavailable, match="sdxl"):
        registry.usable("sdxl")


def test_a_checkpoint_is_described_by_its_manifest(registry: ModelRegistry) -> None:
    published = manifest("toy", prediction_type="v_prediction", resolution=128)
    registry.refresh({}, [published])
    toy = registry.find("checkpoints/toy")
    assert (toy.name, toy.checkpoint, toy.base_model) == ("toy", "checkpoints/toy", "tiny")
    assert (toy.spec.architecture, toy.spec.prediction_type, toy.spec.native_px) == ("sd15", "v_prediction", 128)
    assert toy.spec.width == TINY.width
    assert not toy.available


def test_a_checkpoint_of_a_checkpoint_has_the_width_of_the_first_base(registry: ModelRegistry) -> None:
    registry.refresh({}, [manifest("toy"), manifest("toy-again", base_model="toy")])
    assert registry.find("toy-again").spec.width == TINY.width


@pytest.mark.parametrize("kind", ["lora", "controlnet", "vae"])
def test_parts_are_no_models(registry: ModelRegistry, kind: str) -> None:
    registry.refresh({}, [manifest("part", kind=kind)])
    with pytest.raises(UnknownModel):
        registry.find("part")


def test_requests_without_a_model_get_a_base_model_before_a_checkpoint(registry: ModelRegistry) -> None:
    lines = [Listing("aaa", "aaa"), Listing("tiny", "tiny", SHA)]
    registry.refresh({"http://a": lines}, [manifest("aaa")])
    assert registry.usable("").name == "tiny"
    registry.select("aaa")
    assert registry.usable("").name == "aaa"


def test_one_name_for_different_weights_is_two_models() -> None:
    registry = ModelRegistry([])
    listings = {f"http://{n}": [Listing("m", "m", sha)] for n, sha in (("a", SHA), ("b", OTHER), ("c", SHA), ("d", ""))}
    registry.refresh(listings, [])
    assert set(registry.usable("m").titles) == {"http://a", "http://c", "http://d"}
    assert set(registry.usable(OTHER).titles) == {"http://b"}


def test_each_back_end_keeps_its_own_title() -> None:
    registry = ModelRegistry([])
    registry.refresh({"http://a": [Listing("m.ckpt [1]", "m")], "http://b": [Listing("sub/m.ckpt", "m")]}, [])
    model = registry.usable("sub/m.ckpt")
    assert model.titles == {"http://a": "m.ckpt [1]", "http://b": "sub/m.ckpt"}


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64), (96, 104)])
def test_sizes_that_fit(registry: ModelRegistry, width: int, height: int) -> None:
    check_size(registry.usable("tiny"), width, height)


@pytest.mark.parametrize(("width", "height"), [(136, 64), (56, 64), (65, 64), (64, 512), (0, 64), (-64, 64)])
def test_a_size_that_does_not_fit_is_refused_with_both_names(registry: ModelRegistry, width: int, height: int) -> None:
    with pytest.raises(ResolutionUnsupported, match=f"tiny.*{width}x{height}"):
        check_size(registry.usable("tiny"), width, height)


def test_of_a_foreign_file_no_size_is_refused() -> None:
    registry = ModelRegistry([])
    registry.refresh({"http://a": [Listing("m", "m")]}, [])
    check_size(registry.usable("m"), 1000, 1000)


def test_precision_is_refused_with_both_names(registry: ModelRegistry) -> None:
    model = registry.usable("tiny")
    check_precision(model, "", ())
    check_precision(model, "fp16", ["fp32", "fp16"])
    with pytest.raises(PrecisionUnsupported, match="tiny does not run in bf16; possible: fp16, fp32"):
        check_precision(model, "bf16", ["fp32", "fp16"])
    with pytest.raises(PrecisionUnsupported, match="flux-dev does not run in fp16; possible: none"):
        check_precision(registry.find("flux-dev"), "fp16", ["fp16"])
