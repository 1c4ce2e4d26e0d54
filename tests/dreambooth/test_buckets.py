import pytest
from dreambooth import buckets


@pytest.mark.parametrize("edge_px", [64, 512, 768])
def test_buckets_have_about_the_area_of_the_square(edge_px: int) -> None:
    found, step = buckets.shapes(edge_px), buckets.step_of(edge_px)
    assert (edge_px, edge_px) in found
    for height, width in found:
        assert height % step == width % step == 0
        assert (width, height) in found
        assert 0.5 <= height / width <= 2
        assert 0.7 < height * width / edge_px**2 <= 1


@pytest.mark.parametrize(
    ("size", "shape"),
    [((512, 512), (512, 512)), ((1000, 1000), (512, 512)), ((4000, 3000), (448, 576)), ((1080, 1920), (640, 384))],
)
def test_an_image_goes_to_the_bucket_of_the_nearest_shape(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert buckets.nearest(*size, 512) == shape


def test_a_panorama_goes_to_the_widest_bucket() -> None:
    height, width = buckets.nearest(4000, 500, 512)
    assert width / height == max(w / h for h, w in buckets.shapes(512))
