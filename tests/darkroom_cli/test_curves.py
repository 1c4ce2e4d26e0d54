"""Curves: every step once, sparklines, and where two runs part."""

import math

import pytest
from darkroom.trainer.v1 import training_pb2 as pb
from darkroom_cli.curves import SPARK_WIDTH, Curve, Difference, compare, sparkline, squeezed


def curve(**stages: list[float]) -> Curve:
    """A curve of these losses; stages are named as in the proto, in small letters."""
    made = Curve()
    for name, losses in stages.items():
        stage = pb.Stage.Value(f"STAGE_{name.upper()}")
        for step, loss in enumerate(losses, 1):
            made.add(pb.Progress(stage=stage, step=step, num_steps=len(losses), loss=loss, smoothed_loss=loss / 2))
    return made


class TestSparkline:
    def test_heights_go_from_the_lowest_to_the_highest(self) -> None:
        assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"

    def test_its_width_never_changes(self) -> None:
        assert {len(sparkline([0.1] * count, 20)) for count in (0, 1, 19, 20, 21, 399, 400)} == {20}

    def test_many_values_become_the_means_of_neighbours(self) -> None:
        assert sparkline([0, 0, 9, 9, 1, 1], 3) == "▁█▂"
        assert squeezed([1, 3, 5, 7, 9], 2) == [2, 7]

    def test_equal_values_lie_flat(self) -> None:
        assert sparkline([3, 3], 4) == "▁▁  "

    def test_what_is_no_number_is_marked_and_bends_nothing(self) -> None:
        assert sparkline([1, math.nan, 2, math.inf], 4) == "▁×█×"

    def test_only_the_newest_points_count(self) -> None:
        made = curve(unet=[1000.0] * 100 + [1.0] * 160 + [2.0] * 160)
        assert made.stages[pb.STAGE_UNET].spark() == "▁" * (SPARK_WIDTH // 2) + "█" * (SPARK_WIDTH // 2)


class TestCurve:
    def test_a_step_that_comes_again_counts_once(self) -> None:
        made = curve(text_encoder=[3.0], unet=[2.0, 1.0])
        again = pb.Progress(stage=pb.STAGE_UNET, step=1, num_steps=2, loss=2.0)
        assert made.has(again)
        made.add(again)
        assert made.losses() == [3.0, 2.0, 1.0]

    def test_stages_keep_their_order(self) -> None:
        made = curve(text_encoder=[1.0], unet=[1.0])
        assert list(made.stages) == [pb.STAGE_TEXT_ENCODER, pb.STAGE_UNET]


class TestCompare:
    def test_equal_runs(self) -> None:
        assert compare(curve(unet=[0.1, 0.2]), curve(unet=[0.1, 0.2])) == (2, None)
        assert compare(Curve(), Curve()) == (0, None)

    def test_the_last_bit_counts(self) -> None:
        other = math.nextafter(0.2, 1.0)
        found = compare(curve(text_encoder=[0.1], unet=[0.1, 0.2]), curve(text_encoder=[0.1], unet=[0.1, other]))
        assert found == (2, Difference(pb.STAGE_UNET, 2, (0.2, other)))

    def test_two_losses_that_are_no_number_are_equal(self) -> None:
        assert compare(curve(unet=[math.nan]), curve(unet=[math.nan])) == (1, None)

    def test_one_run_goes_on_alone(self) -> None:
        assert compare(curve(unet=[0.1]), curve(unet=[0.1, 0.2])) == (1, Difference(pb.STAGE_UNET, 2, (None, 0.2)))

    @pytest.mark.parametrize("swapped", [False, True])
    def test_one_run_enters_its_next_stage_earlier(self, swapped: bool) -> None:
        runs = curve(text_encoder=[0.1, 0.2], unet=[0.3]), curve(text_encoder=[0.1], unet=[0.3])
        equal, difference = compare(*(reversed(runs) if swapped else runs))
        losses = (None, 0.2) if swapped else (0.2, None)
        assert (equal, difference) == (1, Difference(pb.STAGE_TEXT_ENCODER, 2, losses))
