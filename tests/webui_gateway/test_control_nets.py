"""The control-net registry: which control net fits which model."""

import pytest
from webui_gateway.architectures import SD2_WIDTH, BaseModel, Width
from webui_gateway.control_nets import ControlNetRegistry
from webui_gateway.errors import ControlNetMismatch, UnknownControlNet
from webui_gateway.models import Listing, ModelRegistry

NARROW = Width(768, (32, 64, 96, 128))
URL = "http://a"


@pytest.fixture
def models() -> ModelRegistry:
    registry = ModelRegistry([BaseModel("tiny", "sd15", "epsilon", 64, width=NARROW)])
    registry.refresh({URL: [Listing("tiny", "tiny"), Listing("sd15", "sd15"), Listing("foreign", "foreign")]}, [])
    return registry


@pytest.fixture
def nets() -> ControlNetRegistry:
    nets = ControlNetRegistry([("canny-tiny", "sd15", NARROW), ("canny-tiny-2", "sd15", NARROW)])
    nets.refresh({URL: ["canny-tiny-2 [12345678]", "mine-depth [87654321]"], "http://b": ["canny-tiny [1]"]})
    return nets


def test_a_kind_resolves_to_one_that_fits_beside_the_model(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    net = nets.resolve("canny", models.usable("tiny"))
    assert (net.name, net.titles) == ("canny-tiny-2", {URL: "canny-tiny-2 [12345678]"})
    assert nets.resolve("Canny", models.usable("sd15")).name == "control_v11p_sd15_canny"


@pytest.mark.parametrize(
    "name", ["control_v11p_sd15_canny", "control_v11p_sd15_canny [d14c016b]", "diffusers_xl_canny_mid"]
)
def test_a_named_one_that_does_not_fit_is_refused_with_both_names(
    models: ModelRegistry, nets: ControlNetRegistry, name: str
) -> None:
    with pytest.raises(ControlNetMismatch, match=f"{name.split(' ')[0]} does not fit model tiny.*32, 64, 96, 128"):
        nets.resolve(name, models.usable("tiny"))


def test_a_kind_that_exists_for_other_models_only_is_refused(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    with pytest.raises(ControlNetMismatch, match="does not fit model tiny"):
        nets.resolve("openpose", models.usable("tiny"))


def test_flux_takes_none(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    with pytest.raises(ControlNetMismatch, match="flux-dev takes no such control net"):
        nets.resolve("canny", models.find("flux-dev"))


def test_both_sd21_share_their_control_nets(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    for name in ("sd21-512", "sd21-768"):
        assert nets.resolve("depth", models.find(name)).width == SD2_WIDTH


def test_an_unknown_one_names_the_nearest(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    with pytest.raises(UnknownControlNet, match=r"'cany'.*canny"):
        nets.resolve("cany", models.usable("tiny"))


def test_of_what_only_a_back_end_knows_nothing_is_refused(models: ModelRegistry, nets: ControlNetRegistry) -> None:
    assert nets.resolve("mine-depth", models.usable("tiny")).titles == {URL: "mine-depth [87654321]"}
    assert nets.resolve("control_v11p_sd15_canny", models.usable("foreign")).name == "control_v11p_sd15_canny"
    assert nets.resolve("canny", models.usable("foreign")).available
