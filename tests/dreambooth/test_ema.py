import torch
from dreambooth.ema import Averages


def followed(decay: float) -> tuple[Averages, dict[str, torch.Tensor]]:
    weights = {"w": torch.tensor([1.0, 2.0])}
    averages = Averages(decay)
    averages.follow({"unet": weights})
    return averages, weights


def test_the_average_follows_the_formula() -> None:
    averages, weights = followed(0.5)
    expected = weights["w"].clone()
    for n in range(20):
        weights["w"] += 1
        averages.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights["w"]
    assert torch.allclose(averages.tensors()["unet.w"], expected)
    assert averages.tensors()["num_updates.unet"] == 20


def test_inside_the_block_the_weights_are_the_averages() -> None:
    averages, weights = followed(0.9)
    weights["w"] += 5
    averages.update()
    before = weights["w"].clone()
    with averages.applied():
        assert torch.equal(weights["w"], averages.tensors()["unet.w"])
        assert not torch.equal(weights["w"], before)
    assert torch.equal(weights["w"], before)


def test_what_was_saved_goes_on_bit_for_bit() -> None:
    whole, weights = followed(0.9)
    torn, torn_weights = followed(0.9)
    for n in range(10):
        weights["w"] += n
        whole.update()
    for n in range(4):
        torn_weights["w"] += n
        torn.update()
    again, again_weights = followed(0.9)
    again_weights["w"].copy_(torn_weights["w"])
    again.load({name: tensor.clone() for name, tensor in torn.tensors().items()})
    for n in range(4, 10):
        again_weights["w"] += n
        again.update()
    assert torch.equal(again.tensors()["unet.w"], whole.tensors()["unet.w"])


def test_a_module_that_is_thrown_away_begins_again() -> None:
    averages, weights = followed(0.9)
    weights["w"] += 5
    averages.update()
    averages.forget("unet")
    assert averages.tensors() == {}
    averages.follow({"unet": weights})
    assert torch.equal(averages.tensors()["unet.w"], weights["w"])


def test_off_it_keeps_nothing() -> None:
    averages, weights = followed(0.0)
    averages.update()
    with averages.applied():
        assert weights["w"].tolist() == [1.0, 2.0]
    assert averages.tensors() == {}
