"""A picture of curves as PNG: raw losses pale, smoothed ones strong, axes with ticks, a line between the stages.

Drawn with Pillow at three times the size and then made smaller, which gives smooth lines. `commands.runs` calls it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from darkroom_cli.plotting import Line, Segment, polylines, segments, tick_labels, ticks, value_range
from darkroom_cli.run_words import stage_of

WIDTH_PX, HEIGHT_PX = 1280, 720
_FINE = 3  # drawn so many times larger
_LEFT, _TOP, _RIGHT, _BOTTOM = 96, 100, 36, 84
_INK, _GREY, _GRID, _BORDER = "#1f2430", "#6b7280", "#e9ebef", "#9aa1ad"
# The smoothed and the raw colour of each run.
_COLOURS = (("#1d6fb8", "#c3dcf1"), ("#d1495b", "#f4cdd2"))
_TITLE, _LABEL, _SMALL = 26, 17, 15
# Room around the losses inside the frame, as a part of their range.
_HEADROOM = 0.04


@dataclass(frozen=True)
class _Frame:
    """From steps and losses to pixels of the large picture."""

    num_steps: int
    low: float
    high: float

    def x(self, step: float) -> float:
        """Place of a step; the axis begins at 0, before the first update."""
        return _FINE * (_LEFT + step / self.num_steps * (WIDTH_PX - _LEFT - _RIGHT))

    def y(self, loss: float) -> float:
        """Place of a loss, kept inside the frame: a spike is cut at its edge."""
        part = min(max((loss - self.low) / (self.high - self.low), 0.0), 1.0)
        return _FINE * (HEIGHT_PX - _BOTTOM - part * (HEIGHT_PX - _TOP - _BOTTOM))


def draw(lines: Sequence[Line], title: str) -> Image.Image:
    """RGB, WIDTH_PX x HEIGHT_PX. One or two runs, of which at least one must have steps."""
    parts = segments(lines)
    low, high = value_range(lines, parts, with_raw=True)
    room = (high - low) * _HEADROOM
    frame = _Frame(parts[-1].start + parts[-1].num_steps, low - room, high + room)
    image = Image.new("RGB", (WIDTH_PX * _FINE, HEIGHT_PX * _FINE), "white")
    pen = ImageDraw.Draw(image)
    _axes(pen, frame, parts)
    for smoothed in (False, True):
        for index, line in reversed(list(enumerate(lines))):
            # The second run lies below and is wider, so that a run that equals another one can still be seen.
            width = (3.0 + 2.0 * index) if smoothed else 1.2
            _curve(pen, frame, polylines(line, parts, smoothed), _COLOURS[index][not smoothed], width)
    _borders(pen, frame, parts)
    _outline(pen, frame)
    _words(pen, title, [line.name for line in lines])
    return _with_side_label(image.reduce(_FINE))


def save(lines: Sequence[Line], title: str, path: Path) -> None:
    """Write the picture. Raises OSError."""
    draw(lines, title).save(path, "PNG")


def _curve(
    pen: ImageDraw.ImageDraw, frame: _Frame, paths: Sequence[Sequence[tuple[float, float]]], colour: str, width: float
) -> None:
    radius = _FINE * width
    for path in paths:
        points = [(frame.x(step), frame.y(loss)) for step, loss in path]
        if len(points) == 1:
            x, y = points[0]
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
        else:
            pen.line(points, fill=colour, width=round(_FINE * width), joint="curve")


def _axes(pen: ImageDraw.ImageDraw, frame: _Frame, parts: Sequence[Segment]) -> None:
    values = ticks(frame.low, frame.high, 8)
    for value, label in zip(values, tick_labels(values), strict=True):
        y = round(frame.y(value) / _FINE) * _FINE + 1  # the middle of a pixel: a sharp line
        pen.line([(frame.x(0), y), (frame.x(frame.num_steps), y)], fill=_GRID, width=_FINE)
        _text(pen, (frame.x(0) - 10 * _FINE, y), label, _SMALL, _GREY, "rm")
    for part in parts:
        _step_ticks(pen, frame, part)
    middle = frame.x(frame.num_steps / 2)
    _text(pen, (middle, (HEIGHT_PX - 16) * _FINE), "steps of each stage", _LABEL, _GREY, "ms")


def _step_ticks(pen: ImageDraw.ImageDraw, frame: _Frame, part: Segment) -> None:
    """Each stage counts its steps from 0; about one tick for every hundred pixels."""
    width = (frame.x(part.start + part.num_steps) - frame.x(part.start)) / _FINE
    bottom = (HEIGHT_PX - _BOTTOM) * _FINE
    found = [value for value in ticks(0, part.num_steps, max(1, int(width / 100))) if value == int(value)]
    for value, label in zip(found, tick_labels(found), strict=True):
        x = frame.x(part.start + value)
        if part.start and not value:  # the end of the stage before stands here
            continue
        pen.line([(x, bottom), (x, bottom + 6 * _FINE)], fill=_BORDER, width=_FINE)
        _text(pen, (x, bottom + 12 * _FINE), label, _SMALL, _GREY, "ma")


def _borders(pen: ImageDraw.ImageDraw, frame: _Frame, parts: Sequence[Segment]) -> None:
    """The name of each stage at the top of its part, and a dashed line before each but the first."""
    top, bottom = _TOP * _FINE, (HEIGHT_PX - _BOTTOM) * _FINE
    for part in parts:
        x = frame.x(part.start)
        if part.start:
            for y in range(top, bottom, 12 * _FINE):
                pen.line([(x, y), (x, min(y + 7 * _FINE, bottom))], fill=_BORDER, width=2 * _FINE)
        room = frame.x(part.start + part.num_steps) - x
        label, place = f"{stage_of(part.stage)}, {part.num_steps} steps", (x + 10 * _FINE, top + 8 * _FINE)
        if pen.textlength(label, _font(_LABEL)) + 20 * _FINE < room:
            pen.rectangle(_grown(pen.textbbox(place, label, _font(_LABEL), "la"), 3 * _FINE), fill="white")
            _text(pen, place, label, _LABEL, _GREY, "la")


def _outline(pen: ImageDraw.ImageDraw, frame: _Frame) -> None:
    bottom = (HEIGHT_PX - _BOTTOM) * _FINE
    pen.line([(frame.x(0), _TOP * _FINE), (frame.x(0), bottom)], fill=_BORDER, width=_FINE)
    pen.line([(frame.x(0), bottom), (frame.x(frame.num_steps), bottom)], fill=_BORDER, width=_FINE)


def _words(pen: ImageDraw.ImageDraw, title: str, names: Sequence[str]) -> None:
    """Title, and below it the legend; long names make them smaller."""
    _text(pen, (_LEFT * _FINE, 44 * _FINE), title, _fitting(pen, title, _TITLE, 0), _INK, "ls")
    items = [
        (label, colour)
        for name, colours in zip(names, _COLOURS, strict=False)
        for label, colour in zip((f"{name}: smoothed loss", "loss of each step"), colours, strict=True)
    ]
    size = _fitting(pen, "".join(label for label, _ in items), _LABEL, 64 * len(items))
    x, y = float(_LEFT * _FINE), 72 * _FINE
    for label, colour in items:
        pen.line([(x, y), (x + 28 * _FINE, y)], fill=colour, width=3 * _FINE)
        _text(pen, (x + 36 * _FINE, y), label, size, _INK, "lm")
        x += pen.textlength(label, _font(size)) + 64 * _FINE


def _fitting(pen: ImageDraw.ImageDraw, text: str, size: float, taken_px: int) -> float:
    """The size, or a smaller one with which the text fits beside what is taken of the frame's width."""
    room = (WIDTH_PX - _LEFT - _RIGHT - taken_px) * _FINE
    return min(size, size * room / max(pen.textlength(text, _font(size)), 1))


def _grown(box: tuple[float, float, float, float], by: int) -> tuple[float, float, float, float]:
    return box[0] - by, box[1] - by, box[2] + by, box[3] + by


def _with_side_label(image: Image.Image) -> Image.Image:
    """The word beside the vertical axis, read from below."""
    label = Image.new("RGB", (120 * _FINE, 24 * _FINE), "white")
    _text(ImageDraw.Draw(label), (60 * _FINE, 12 * _FINE), "loss", _LABEL, _GREY, "mm")
    upright = label.reduce(_FINE).rotate(90, expand=True)
    image.paste(upright, (12, (HEIGHT_PX + _TOP - _BOTTOM) // 2 - 60))
    return image


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font that Pillow carries; size in pixels of the finished picture."""
    return ImageFont.load_default(size * _FINE)


def _text(
    pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: float, colour: str, anchor: str
) -> None:
    pen.text(place, text, fill=colour, font=_font(size), anchor=anchor)
