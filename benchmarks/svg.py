"""Plots as SVG, small enough to live in the repository: points or lines over time with shaded spans, and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import msgspec

WIDTH, LEFT, RIGHT = 860, 74, 150
PANEL, GAP, TOP, BOTTOM = 150, 26, 44, 40
COLOURS = ("#c0392b", "#d98c00", "#7d3c98", "#1e8449", "#2471a3", "#555555")
POINTS_MAX = 1500
"""Points of one series that are drawn; of more, the highest of each stretch is kept, so that no peak vanishes."""


class Panel(msgspec.Struct):
    """One plot: points (x, y), spans of x that are shaded, and a label at its right."""

    label: str
    points: Sequence[tuple[float, float]]
    spans: Sequence[tuple[float, float]] = ()
    line: bool = False


def panels(path: Path, title: str, x_label: str, y_label: str, parts: Sequence[Panel], log: bool = True) -> None:
    """Write panels one under the other, with one common scale."""
    xs = [x for part in parts for x, _ in part.points] + [x for part in parts for span in part.spans for x in span]
    ys = [y for part in parts for _, y in part.points if y > 0 or not log]
    x_max = max(xs, default=1.0) or 1.0
    low, high = _range(ys, log)
    height = TOP + len(parts) * (PANEL + GAP) + BOTTOM
    out = [_head(height), _text(LEFT, 24, title, size=16, bold=True)]
    for number, part in enumerate(parts):
        top = TOP + number * (PANEL + GAP)
        out += _panel(part, COLOURS[number % len(COLOURS)], top, x_max, low, high, log)
    out.append(_text(LEFT + (WIDTH - LEFT - RIGHT) / 2, height - 10, x_label, middle=True))
    out.append(
        f'<text x="16" y="{TOP + (height - TOP - BOTTOM) / 2:.0f}" text-anchor="middle"'
        f' transform="rotate(-90 16 {TOP + (height - TOP - BOTTOM) / 2:.0f})">{escape(y_label)}</text>'
    )
    path.write_text("\n".join([*out, "</svg>", ""]), encoding="utf-8")


HEADING_CHARS = 85
"""A longer heading is set smaller: it would be cut off."""


def bars(path: Path, title: str, unit: str, values: Sequence[tuple[str, float, str]]) -> None:
    """Horizontal bars on a logarithmic scale, each with its value in words."""
    height = TOP + len(values) * 34 + 24
    positive = [value for _, value, _ in values if value > 0]
    low, high = _range(positive, True)
    heading = f"{title} ({unit}, logarithmic)"
    size = 16 if len(heading) <= HEADING_CHARS else 13
    out = [_head(height), _text(12, 24, heading, size=size, bold=True)]
    for number, (label, value, says) in enumerate(values):
        y = TOP + number * 34
        share = _share(value, low, high, True) if value > 0 else 0.0
        width = max(2.0, share * (WIDTH - 230 - 180))
        colour = COLOURS[number % len(COLOURS)]
        out.append(_text(220, y + 17, label, end=True))
        out.append(f'<rect x="230" y="{y}" width="{width:.1f}" height="24" fill="{colour}" rx="2"/>')
        out.append(_text(238 + width, y + 17, says))
    path.write_text("\n".join([*out, "</svg>", ""]), encoding="utf-8")


def _panel(part: Panel, colour: str, top: float, x_max: float, low: float, high: float, log: bool) -> list[str]:
    inner = WIDTH - LEFT - RIGHT
    out = []
    for begin, end in part.spans:
        x, width = LEFT + begin / x_max * inner, max(1.0, (end - begin) / x_max * inner)
        out.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{PANEL}" fill="#f0e6c8"/>')
    for tick in _ticks(low, high, log):
        y = top + PANEL * (1 - _share(tick, low, high, log))
        out.append(f'<line x1="{LEFT}" x2="{LEFT + inner}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(_text(LEFT - 6, y + 4, f"{tick:g}", end=True, size=11))
    drawn = [
        (LEFT + x / x_max * inner, top + PANEL * (1 - _share(max(y, low), low, high, log)))
        for x, y in _thin(part.points)
    ]
    if part.line:
        at = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        out.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    else:
        marks = "".join(f"M{x:.1f} {y:.1f}h1.6" for x, y in drawn)
        out.append(f'<path d="{marks}" stroke="{colour}" stroke-width="1.8" fill="none"/>')
    out.append(f'<rect x="{LEFT}" y="{top}" width="{inner}" height="{PANEL}" fill="none" stroke="#888"/>')
    for number in range(5):
        x = LEFT + inner * number / 4
        out.append(_text(x, top + PANEL + 14, f"{x_max * number / 4:.3g}", middle=True, size=11))
    out.append(_text(LEFT + inner + 10, top + 18, part.label, bold=True, colour=colour))
    return out


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    ordered = sorted(points)
    step = math.ceil(len(ordered) / POINTS_MAX)
    if step <= 1:
        return ordered
    return [max(ordered[at : at + step], key=lambda point: point[1]) for at in range(0, len(ordered), step)]


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    high = max(values, default=1.0) or 1.0
    if not log:
        return 0.0, high * 1.05
    low = 10 ** math.floor(math.log10(min(values, default=0.1)))
    return low, max(10 ** math.ceil(math.log10(high)), low * 10)


def _share(value: float, low: float, high: float, log: bool) -> float:
    if log:
        return (math.log10(value) - math.log10(low)) / (math.log10(high) - math.log10(low))
    return (value - low) / (high - low)


def _ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        return [10.0**power for power in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    return [high * part / 4 for part in range(5)]


def _head(height: float) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}"'
        f' font-family="sans-serif" font-size="13"><rect width="100%" height="100%" fill="white"/>'
    )


def _text(
    x: float,
    y: float,
    says: str,
    *,
    size: int = 13,
    bold: bool = False,
    middle: bool = False,
    end: bool = False,
    colour: str = "#222",
) -> str:
    anchor = "middle" if middle else "end" if end else "start"
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{weight}>'
        f"{escape(says)}</text>"
    )
