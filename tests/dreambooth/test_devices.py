"""Where a training computes. Most machines of the tests have no GPU; torch's answers about one are made up."""

import pytest
import torch
from dreambooth import devices, world
from dreambooth.errors import DeviceUnusable


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Whatever is made on a device fails."""

    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(torch, "ones", fail)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(("device", "expected"), [("auto", "cuda"), ("cuda", "cuda"), ("cpu", "cpu")])
def test_with_gpus_only_cpu_leaves_them_alone(monkeypatch: pytest.MonkeyPatch, device: str, expected: str) -> None:
    checked: list[int] = []
    monkeypatch.setattr(devices, "check_gpu", checked.append)
    assert world.join(None, device).device == torch.device(expected)
    assert checked == ([0] if device == "cuda" else [])


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_it_computes_on_the_cpu_unless_a_gpu_was_asked_for(device: str) -> None:
    assert world.join(None, device).device == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "hip", "build"), [(None, None, "CPUs alone"), ("12.8", None, "CUDA 12.8"), (None, "6.4", "ROCm 6.4")]
)
@pytest.mark.usefixtures("no_gpu")
def test_a_gpu_that_was_asked_for_and_cannot_compute_is_an_error_that_says_all(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, hip: str | None, build: str
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    failing(monkeypatch, RuntimeError("Found no NVIDIA driver on your system.\nMore of it."))
    with pytest.raises(DeviceUnusable) as caught:
        world.join(None, "cuda")
    said = str(caught.value)
    assert f"GPU 0: Found no NVIDIA driver on your system. Found: torch {torch.__version__} for {build}" in said
    assert "sees 0 GPUs" in said
    assert "-cuda" in said
    assert "More of it" not in said


@pytest.mark.parametrize("kind", [RuntimeError, torch.OutOfMemoryError])
@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_whose_memory_is_full_is_tried_again(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    failing(monkeypatch, kind("CUDA error: out of memory"))
    with pytest.raises(MemoryError, match="GPU 0 has no memory left"):
        world.join(None, "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_real_gpu_computes() -> None:
    assert world.join(None, "cuda").device == torch.device("cuda")
