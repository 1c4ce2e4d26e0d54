"""Pictures of curves: what is where in the characters of a terminal and in the pixels of a PNG."""

import math
from pathlib import Path

import pytest
from darkroom_cli import plot_png, plot_terminal
from darkroom_cli.curves import Curve
from darkroom_cli.plotting import Line, segments, tick_labels, ticks, value_range
from PIL import Image, ImageColor

from tests.darkroom_cli.test_curves import curve


def line(name: str = "toy/first", **stages: list[float]) -> Line:
    return Line(name, curve(**stages))


def falling(count: int, start: float = 1.0) -> list[float]:
    return [start * (1 - 0.9 * step / count) for step in range(count)]


class TestTicks:
    @pytest.mark.parametrize(
        ("low", "high", "most", "found"),
        [
            (0, 1, 5, ["0.0", "0.2", "0.4", "0.6", "0.8"]),
            (0.013, 0.041, 4, ["0.02", "0.03", "0.04"]),
            (0, 1500, 8, ["0", "200", "400", "600", "800", "1000", "1200", "1400"]),
            (-0.5, 0.5, 3, ["-0.5", "0.0", "0.5"]),
        ],
    )
    def test_they_are_round_and_told_apart(self, low: float, high: float, most: int, found: list[str]) -> None:
        assert tick_labels(ticks(low, high, most)) == found

    @pytest.mark.parametrize("high", [1e-9, 0.3, 7, 1234567])
    def test_there_are_some_but_not_too_many(self, high: float) -> None:
        assert 1 <= len(ticks(0, high, 8)) <= 8


class TestLayout:
    def test_stages_lie_behind_each_other_as_long_as_the_longest(self) -> None:
        found = segments([line(text_encoder=[1.0] * 3, unet=[1.0] * 5), line(text_encoder=[1.0] * 4)])
        assert [(part.start, part.num_steps) for part in found] == [(0, 4), (4, 5)]

    def test_a_spike_does_not_flatten_the_rest(self) -> None:
        found = [line(unet=[*falling(299), 1e6])]
        assert value_range([Line("a", found[0].curve)], segments(found), with_raw=True)[1] > 1e5  # its smoothed loss
        calm = [line(unet=falling(300))]
        calm[0].curve.stages[2].by_step[300] = calm[0].curve.stages[2].by_step[1].__class__(300, 1e6, 0.1, 0, 0, 0)
        assert value_range(calm, segments(calm), with_raw=True)[1] == pytest.approx(1.0, abs=0.02)

    def test_equal_losses_still_have_a_range(self) -> None:
        found = [line(unet=[1.0, 1.0])]
        low, high = value_range(found, segments(found), with_raw=False)
        assert low < 0.5 < high


class TestTerminal:
    def test_the_curve_falls_from_the_upper_left_to_the_lower_right(self) -> None:
        rows = plot_terminal.draw([line(unet=falling(200))], 60, 12, coloured=False).plain.splitlines()
        assert len(rows) == 12
        assert max(map(len, rows)) <= 60
        assert _is_braille(rows[0].rstrip()[-1])
        assert len(rows[0].rstrip()) < 20
        assert _is_braille(rows[9].rstrip()[-1])
        assert len(rows[9].rstrip()) == 60

    def test_every_column_between_the_steps_is_drawn(self) -> None:
        rows = plot_terminal.draw([line(unet=[1.0, 0.5, 0.0])], 60, 12, coloured=False).plain.splitlines()[:10]
        columns = {index for row in rows for index, character in enumerate(row) if _is_braille(character)}
        assert columns == set(range(60 - len(columns), 60))
        assert len(columns) > 50

    def test_stages_are_parted_and_named(self) -> None:
        rows = plot_terminal.draw(
            [line(text_encoder=falling(100), unet=falling(100))], 80, 10, coloured=False
        ).plain.splitlines()
        assert "┴" in rows[-2]
        assert "text encoder 100" in rows[-1]
        assert rows[-1].index("UNet 100 steps") == rows[-2].index("┴")

    def test_two_runs_are_told_apart_without_colours(self) -> None:
        lines = [line("a", unet=falling(100)), line("b", unet=falling(100, 2.0))]
        plain = plot_terminal.draw(lines, 60, 12, coloured=False)
        assert "+" in plain.plain
        assert not plain.spans
        coloured = plot_terminal.draw(lines, 60, 12, coloured=True)
        assert "+" not in coloured.plain
        assert {"bold cyan", "bold magenta"} <= {str(span.style) for span in coloured.spans}
        assert plot_terminal.legend(["a", "b"], coloured=False).plain == "smoothed loss   ⠒⠒ a   ++ b"

    def test_losses_that_are_no_number_cut_the_line(self) -> None:
        losses = [*falling(50), *[math.nan] * 50, *falling(50)]
        row = plot_terminal.draw([line(unet=losses)], 60, 12, coloured=False).plain.splitlines()
        middle = {character for text in row[:10] for character in text[28:34]}
        assert middle == {" "}

    @pytest.mark.parametrize("losses", [[0.5], [math.nan], [0.5, 0.5]])
    def test_little_to_draw_is_drawn(self, losses: list[float]) -> None:
        assert len(plot_terminal.draw([line(unet=losses)], 30, 5, coloured=False).plain.splitlines()) == 5


class TestPng:
    def test_strong_and_pale_lines_axes_and_stage_boundary(self, tmp_path: Path) -> None:
        losses = [value + (0.2 if step % 2 else 0) for step, value in enumerate(falling(200))]
        path = tmp_path / "curve.png"
        plot_png.save([line(text_encoder=losses[:100], unet=losses)], "toy/first", path)
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("PNG", "RGB", (1280, 720))
            found = {colour: count for count, colour in image.getcolors(1 << 24)}
        assert all(found.get(ImageColor.getrgb(colour), 0) > 200 for colour in ("#1d6fb8", "#c3dcf1", "#e9ebef"))

    def test_the_curve_is_where_its_losses_are(self) -> None:
        image = plot_png.draw([line(unet=falling(300))], "toy/first")
        strong = ImageColor.getrgb("#1d6fb8")
        column = {x: [y for y in range(101, 636) if image.getpixel((x, y)) == strong] for x in (200, 1200)}
        # Smoothed losses of this curve are half the raw ones, which reach from 0.1 to 1.
        assert max(column[200]) < 450 < 550 < min(column[1200])

    def test_equal_runs_are_both_seen(self) -> None:
        image = plot_png.draw([line("a", unet=falling(50)), line("b", unet=falling(50))], "a and b")
        colours = [colour for _, colour in image.crop((110, 110, 1200, 630)).getcolors(1 << 24)]
        assert {ImageColor.getrgb("#1d6fb8"), ImageColor.getrgb("#d1495b")} <= set(colours)

    @pytest.mark.parametrize("losses", [[0.5], [math.nan], [0.5, 0.5]])
    def test_little_to_draw_is_drawn(self, losses: list[float]) -> None:
        lines = [line("long-session-" * 5 + "/run", unet=losses), Line("nothing/yet", Curve())]
        assert plot_png.draw(lines, "x" * 300).size == (1280, 720)


def _is_braille(character: str) -> bool:
    return "\u2801" <= character <= "\u28ff"
