"""Charts of the report as inline SVG: curves over steps, and a heat map of a confusion matrix.

Colours are classes of report.css, so charts follow a light or dark page. report.js adds the values under the pointer;
the charts can be read without it.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup

from research.report.html import number, tag, words

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 36  # margins around the plot
POINTS = 800  # of one curve; more would not be visible
SMOOTH = 80  # a curve of more points is drawn faint, with its moving average over it


class Series(NamedTuple):
    """A curve: its name, the number of its colour, and its (step, value) points in order of steps."""

    name: str
    color: int
    points: Sequence[tuple[float, float]]
    marks: bool = False  # points instead of a line


class Chart(NamedTuple):
    """A chart for the template: its drawings, one per scale, and what report.js shows under the pointer."""

    title: str
    plots: Sequence[Markup]
    chosen: int  # the drawing that is visible at first
    legend: Sequence[tuple[int, str, str]]  # (color, name, last value)
    curves: Sequence[Mapping[str, Any]]


def decimate(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """Keeps at most `limit` points: the first, lowest, highest and last of each stretch."""
    if len(points) <= limit:
        return list(points)
    stretches = np.array_split(np.asarray([value for _, value in points]), limit // 4)
    kept, start = [], 0
    for values in stretches:
        ends = {0, len(values) - 1, int(values.argmin()), int(values.argmax())}
        kept += [points[start + index] for index in sorted(ends)]
        start += len(values)
    return kept


def smooth(points: Sequence[tuple[float, float]], reach: int) -> list[tuple[float, float]]:
    """Averages over up to `reach` points on either side, so that the result does not lag."""
    sums = np.concatenate([[0.0], np.cumsum([value for _, value in points])])
    index = np.arange(len(points))
    first, end = np.maximum(0, index - reach), np.minimum(len(points), index + reach + 1)
    means = (sums[end] - sums[first]) / (end - first)
    return [(step, float(mean)) for (step, _), mean in zip(points, means, strict=True)]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Chooses about `count` round values, 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Chooses powers of ten between `low` and `high`, with 2 and 5 times them where they are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 4 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in decades for factor in factors]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return ticks[:: math.ceil(len(ticks) / 7)] if ticks else [low, high]


def short(value: float) -> str:
    """Formats the label of a tick: 1200 as '1.2k'."""
    for size, unit in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if abs(value) >= size:
            return f'{value / size:.4g}{unit}'
    return f'{value:.4g}'


class Scale(NamedTuple):
    """Maps values to a coordinate of the drawing."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        value = math.log(value) if self.log else value
        return self.start + (value - low) / ((high - low) or 1.0) * (self.end - self.start)


def line_chart(title: str, series: Sequence[Series], last: float = 0) -> Chart:
    """Draws curves over steps; values that span decades are drawn on a linear and on a log scale.

    Args:
      title: the name of the metric.
      series: the curves; their values must be finite.
      last: the last step of the axis, so that several charts share it.
    """
    values = [value for curve in series for _, value in curve.points]
    longest = max(series, key=lambda curve: len(curve.points)).points
    falls = longest[-1][1] < longest[0][1]
    ratio = max(values) / min(values) if min(values) > 0 and falls else 0
    plots = [_plot(title, series, last, log) for log in ((False, True) if ratio > 8 else (False,))]
    legend = [(curve.color, curve.name, number(curve.points[-1][1])) for curve in series]
    curves = [
        {
            'name': curve.name,
            'color': curve.color,
            'points': [[step, _round(value)] for step, value in decimate(curve.points, 400)],
        }
        for curve in series
    ]
    # On a linear scale, a curve that falls by more than this looks flat at its end.
    return Chart(title, plots, 1 if ratio > 30 else 0, legend, curves)


def _round(value: float) -> float:
    return float(f'{value:.5g}')


def _plot(title: str, series: Sequence[Series], last: float, log: bool) -> Markup:
    """Draws axes and curves on one scale."""
    steps = [step for curve in series for step, _ in curve.points]
    values = [value for curve in series for _, value in curve.points]
    across = Scale(0, max(*steps, last, 1), LEFT, WIDTH - RIGHT)
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.1, high * 1.1
    else:
        margin = (high - low) * 0.06 or abs(high) * 0.1 or 0.5
        low, high = (0.0 if 0 <= low < (high - low) * 0.3 else low - margin), high + margin
    up = Scale(low, high, HEIGHT - BOTTOM, TOP, log)
    scale = {'x': [across.low, across.high], 'y': [low, high], 'log': log}
    box = {'left': LEFT, 'right': WIDTH - RIGHT, 'top': TOP, 'bottom': HEIGHT - BOTTOM}
    ends = ', '.join(
        f'{curve.name} from {number(curve.points[0][1])} to {number(curve.points[-1][1])}' for curve in series
    )
    return tag(
        'svg',
        _axes(across, up, log),
        [_curve(curve, across, up) for curve in series],
        viewBox=f'0 0 {WIDTH} {HEIGHT}',
        role='img',
        aria_label=f'{words(title)} over steps: {ends}',
        data_scale=json.dumps({**scale, **box}),
    )


def _axes(across: Scale, up: Scale, log: bool) -> list[Markup]:
    """Draws grid lines, tick labels and the names of the axes."""
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in (log_ticks if log else nice_ticks)(up.low, up.high):
        y = f'{up(value):.1f}'
        parts.append(tag('line', x1=LEFT, x2=right, y1=y, y2=y, class_='grid'))
        parts.append(tag('text', short(value), x=LEFT - 6, y=y, dy='0.35em', text_anchor='end'))
    for value in nice_ticks(across.low, across.high):
        x = f'{across(value):.1f}'
        parts.append(tag('line', x1=x, x2=x, y1=bottom, y2=bottom + 4, class_='axis'))
        parts.append(tag('text', short(value), x=x, y=bottom + 16, text_anchor='middle'))
    parts.append(tag('line', x1=LEFT, x2=right, y1=bottom, y2=bottom, class_='axis'))
    parts.append(tag('text', 'step', x=right, y=HEIGHT - 6, text_anchor='end', class_='unit'))
    if log:
        parts.append(tag('text', 'log scale', x=LEFT, y=HEIGHT - 6, class_='unit'))
    return parts


def _curve(series: Series, across: Scale, up: Scale) -> list[Markup]:
    """Draws a curve; a long one is faint under its moving average."""
    points, color = series.points, f'c{series.color}'

    def path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
        d = 'M' + 'L'.join(f'{across(step):.1f} {up(value):.1f}' for step, value in points)
        return tag('path', d=d, class_=f'curve {color} {kind}'.strip())

    if len(points) > SMOOTH and not series.marks:
        smoothed = decimate(smooth(points, len(points) // 60))
        return [path(decimate(points), 'faint'), path(smoothed, '')]
    parts = [] if series.marks or len(points) < 2 else [path(points, '')]
    if series.marks or len(points) <= 40:
        radius = 4 if series.marks or len(points) < 2 else 2.2
        parts += [
            tag(
                'circle',
                cx=f'{across(step):.1f}',
                cy=f'{up(value):.1f}',
                r=radius,
                class_=f'dot {color}' + (' mark' if series.marks else ''),
            )
            for step, value in points
        ]
    return parts


class Grid(NamedTuple):
    """The cells of a heat map: the corner of the first one, their size, and whether they are labelled and numbered."""

    left: float
    top: float
    cell: float
    labelled: bool
    numbered: bool
    slanted: bool


def heat_map(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> Markup:
    """Draws a confusion matrix: rows are true classes, columns predicted ones, shades the share of a row."""
    count = len(matrix)
    cell = 34 if count <= 12 else 26 if count <= 24 else max(6, 620 // count)
    labelled = count <= 40
    longest = max(len(name) for name in names) if labelled else 0
    slanted = longest > 3
    top = 26 + (min(longest, 16) * 5 if slanted else 14) if labelled else 26
    grid = Grid(30 + min(longest, 16) * 7, top, cell, labelled, count <= 24, slanted)
    size = count * cell
    parts = [
        tag('text', 'predicted', x=grid.left + size / 2, y=14, text_anchor='middle', class_='unit'),
        tag('text', 'true', x=12, y=top + size / 2, text_anchor='middle', class_='unit',
            transform=f'rotate(-90 12 {top + size / 2})'),
        tag('rect', x=grid.left, y=top, width=size, height=size, class_='frame'),
        _class_labels(names, grid) if labelled else [],
    ]  # fmt: skip
    for true, row in enumerate(matrix):
        parts += [_cell(names, row, true, predicted, grid) for predicted, value in enumerate(row) if value]
    width, height = grid.left + size + (longest * 4 if slanted else 8), top + size + 8
    label = f'Confusion matrix of {count} classes; rows are true classes, columns predicted ones'
    return tag('svg', parts, viewBox=f'0 0 {width} {height}', role='img', aria_label=label, class_='heat',
               style=f'max-width:{width * 1.4:.0f}px')  # fmt: skip


def _class_labels(names: Sequence[str], grid: Grid) -> list[Markup]:
    """Writes each class above its column and left of its row."""
    labels = []
    for index, name in enumerate(names):
        middle = index * grid.cell + grid.cell / 2
        name = name if len(name) <= 16 else name[:15] + '…'
        x, y = grid.left + middle, grid.top - 8
        turn = f'rotate(-38 {x} {y})' if grid.slanted else None
        anchor = 'start' if grid.slanted else 'middle'
        labels.append(tag('text', name, x=x, y=y, text_anchor=anchor, transform=turn))
        labels.append(tag('text', name, x=grid.left - 8, y=grid.top + middle, dy='0.35em', text_anchor='end'))
    return labels


def _cell(names: Sequence[str], row: Sequence[float], true: int, predicted: int, grid: Grid) -> Markup:
    """Draws a cell that is not zero; its title explains it under the pointer."""
    value, size = row[predicted], grid.cell
    share = value / (sum(row) or 1)
    x, y = grid.left + predicted * size, grid.top + true * size
    # The root keeps a single mistake among many visible.
    shade = f'{0.1 + 0.9 * math.sqrt(share):.3f}'
    title = f'{names[true]} predicted as {names[predicted]}: {number(value)} ({100 * share:.1f}%)'
    box = tag('rect', x=x + 1, y=y + 1, width=size - 2, height=size - 2, rx=2,
              class_='right' if true == predicted else 'wrong', fill_opacity=shade)  # fmt: skip
    count = (
        tag('text', number(value), x=x + size / 2, y=y + size / 2, dy='0.35em', text_anchor='middle',
            class_='on' if share > 0.3 else None)
        if grid.numbered
        else None
    )  # fmt: skip
    return tag('g', tag('title', title), box, count)
