"""The panels of the chart's dashboards with data of a real Prometheus: as series, and drawn where Grafana would put them."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from darkroom_cli.plotting import ticks
from PIL import Image, ImageDraw, ImageFont

from tests.cluster.chart_prometheus import RATE_SECONDS, Prometheus
from tests.helm import chart

_CELL_PX: Final = (56, 36)
_MARGIN_PX: Final = 24
_TOP_PX: Final = 64
_INK, _GREY, _GRID, _PAPER = "#1f2430", "#6b7280", "#e5e7eb", "#ffffff"
_COLOURS: Final = ("#1d6fb8", "#d1495b", "#2e8b57", "#e0a030", "#7b5ea7", "#4aa3a2", "#8c6d46", "#d16ba5")
_FINE: Final = 2


@dataclass(frozen=True)
class Panel:
    """One panel. place: x, y, width and height in cells of Grafana's grid. series: by their legends."""

    title: str
    place: tuple[int, int, int, int]
    series: dict[str, list[tuple[float, float]]]


def names() -> list[str]:
    """The dashboards of the chart."""
    return sorted(path.stem for path in (chart.CHART / "dashboards").glob("*.json"))


def panels(name: str, prometheus: Prometheus, namespace: str) -> list[Panel]:
    """A dashboard with what Prometheus says."""
    board = json.loads((chart.CHART / "dashboards" / f"{name}.json").read_text())
    return [_panel(panel, prometheus, namespace) for panel in board["panels"]]


def _panel(panel: dict[str, Any], prometheus: Prometheus, namespace: str) -> Panel:
    series: dict[str, list[tuple[float, float]]] = {}
    for target in panel["targets"]:
        expression = target["expr"].replace("$namespace", namespace).replace("$__rate_interval", f"{RATE_SECONDS}s")
        for labels, values in prometheus.query_range(expression):
            finite = [(at, value) for at, value in values if math.isfinite(value)]
            if finite:
                series[_legend(target["legendFormat"], labels)] = finite
    place = panel["gridPos"]
    # The largest first: names beyond the room of the legend are left out.
    by_peak = dict(sorted(series.items(), key=lambda one: -max(value for _, value in one[1])))
    return Panel(panel["title"], (place["x"], place["y"], place["w"], place["h"]), by_peak)


def _legend(form: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def draw(title: str, found: list[Panel], path: Path) -> None:
    """All panels as one picture."""
    across = max(x + width for x, _, width, _ in (panel.place for panel in found)) * _CELL_PX[0] + 2 * _MARGIN_PX
    down = max(y + height for _, y, _, height in (panel.place for panel in found)) * _CELL_PX[1] + _TOP_PX + _MARGIN_PX
    sheet = Image.new("RGB", (across * _FINE, down * _FINE), _PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((_MARGIN_PX * _FINE, _MARGIN_PX * _FINE / 2), title, _INK, ImageFont.load_default(26 * _FINE))
    for panel in found:
        _draw_panel(pen, panel)
    sheet.resize((across, down), Image.Resampling.LANCZOS).quantize(64).save(path, optimize=True)


def _draw_panel(pen: ImageDraw.ImageDraw, panel: Panel) -> None:
    x, y, width, height = panel.place
    left, top = (_MARGIN_PX + x * _CELL_PX[0]) * _FINE, (_TOP_PX + y * _CELL_PX[1]) * _FINE
    right, bottom = left + (width * _CELL_PX[0] - 12) * _FINE, top + (height * _CELL_PX[1] - 12) * _FINE
    pen.rectangle((left, top, right, bottom), outline=_GRID, width=_FINE)
    pen.text((left + 10 * _FINE, top + 6 * _FINE), panel.title, _INK, ImageFont.load_default(16 * _FINE))
    plot = (left + 70 * _FINE, top + 36 * _FINE, right - 12 * _FINE, bottom - 54 * _FINE)
    if not panel.series:
        pen.text((left + 70 * _FINE, (top + bottom) / 2), "nothing happened", _GREY, ImageFont.load_default(14 * _FINE))
        return
    _draw_lines(pen, panel.series, plot)
    _draw_legend(pen, list(panel.series), (left + 10 * _FINE, bottom - 26 * _FINE), right)


def _draw_lines(
    pen: ImageDraw.ImageDraw, series: dict[str, list[tuple[float, float]]], plot: tuple[float, ...]
) -> None:
    left, top, right, bottom = plot
    small = ImageFont.load_default(13 * _FINE)
    points = [point for line in series.values() for point in line]
    until = max(at for at, _ in points) or 1.0
    low, high = min(0.0, *(value for _, value in points)), max(value for _, value in points)
    high = high if high > low else low + 1

    def place(at: float, value: float) -> tuple[float, float]:
        return left + at / until * (right - left), bottom - (value - low) / (high - low) * (bottom - top)

    for mark in ticks(low, high, 4):
        height = place(0, mark)[1]
        pen.line((left, height, right, height), _GRID, _FINE)
        pen.text((left - 6 * _FINE, height), _short(mark), _GREY, small, anchor="rm")
    for at in range(0, int(until) + 1, 30):
        pen.text((place(at, low)[0], bottom + 6 * _FINE), f"{at} s", _GREY, small, anchor="ma")
    for index, line in enumerate(series.values()):
        path = [place(*point) for point in line]
        pen.line(path if len(path) > 1 else path * 2, _COLOURS[index % len(_COLOURS)], 2 * _FINE, joint="curve")


def _short(value: float) -> str:
    """400000000 as 400 M."""
    factor, unit = next(((f, u) for f, u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if abs(value) >= f), (1, ""))
    return f"{value / factor:.3g}{unit}"


def _draw_legend(pen: ImageDraw.ImageDraw, legends: list[str], start: tuple[float, float], right: float) -> None:
    """As many names as there is room for."""
    small = ImageFont.load_default(13 * _FINE)
    rest = 80 * _FINE
    x, y = start
    for index, legend in enumerate(legends):
        text = legend.removeprefix("darkroom.")
        width = pen.textlength(text, small) + 30 * _FINE
        if x + width + (rest if index < len(legends) - 1 else 0) > right:
            pen.text((x, y), f"and {len(legends) - index} more", _GREY, small)
            return
        pen.line((x, y + 8 * _FINE, x + 14 * _FINE, y + 8 * _FINE), _COLOURS[index % len(_COLOURS)], 3 * _FINE)
        pen.text((x + 20 * _FINE, y), text, _GREY, small)
        x += width
