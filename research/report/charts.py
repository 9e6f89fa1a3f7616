"""Charts of the report as inline SVG: curves over steps, and a heat map of a confusion matrix.

Colours are classes of report.css, so that the charts follow a light or dark page; report.js adds the values
under the pointer. Everything can be read without it.
"""

import json
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from research.report.html import Html, number, tag, words

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 10, 36  # margins around the plot
POINTS = 800  # of one curve: more would not be seen
SMOOTH = 80  # a curve of more points is drawn faint, with its moving average over it


class Series(NamedTuple):
    """One curve: its name, the number of its colour, and its (step, value) points in order of steps."""

    name: str
    color: int
    points: Sequence[tuple[float, float]]
    marks: bool = False  # points instead of a line


def decimate(points: Sequence[tuple[float, float]], limit: int = POINTS) -> list[tuple[float, float]]:
    """Returns at most `limit` points: the first, lowest, highest and last of each stretch."""
    if len(points) <= limit:
        return list(points)
    stretches = np.array_split(np.asarray([value for _, value in points]), limit // 4)
    kept, start = [], 0
    for values in stretches:
        ends = {0, len(values) - 1, int(values.argmin()), int(values.argmax())}
        kept += [points[start + place] for place in sorted(ends)]
        start += len(values)
    return kept


def smooth(points: Sequence[tuple[float, float]], reach: int) -> list[tuple[float, float]]:
    """Returns the mean over up to `reach` points on either side, which does not lag behind."""
    sums = np.concatenate([[0.0], np.cumsum([value for _, value in points])])
    place = np.arange(len(points))
    first, end = np.maximum(0, place - reach), np.minimum(len(points), place + reach + 1)
    means = (sums[end] - sums[first]) / (end - first)
    return [(step, float(mean)) for (step, _), mean in zip(points, means, strict=True)]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Returns about `count` round values, 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        return [low]
    rough = (high - low) / count
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten between `low` and `high`, with 2 and 5 times them where there are few."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(decades) > 4 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in decades for factor in factors]
    ticks = [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
    return ticks[:: math.ceil(len(ticks) / 7)] if ticks else [low, high]


def short(value: float) -> str:
    """Returns a tick's label: 1200 as '1.2k'."""
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


def line_chart(title: str, series: Sequence[Series], last: float = 0) -> Html:
    """Returns a figure of curves over steps with a legend; what spans decades can be seen on two scales.

    Args:
      title: the name of what is drawn.
      series: the curves; values that are not finite must have been left out.
      last: the last step to draw, so that several charts have the same axis.
    """
    values = [value for each in series for _, value in each.points]
    longest = max(series, key=lambda each: len(each.points)).points
    falls = longest[-1][1] < longest[0][1]
    spread = max(values) / min(values) if min(values) > 0 and falls else 0
    plots = [_plot(title, series, last, False)]
    if spread > 8:
        plots.append(_plot(title, series, last, True))
        # A curve that falls by so much is flat at its end on a linear scale.
        chosen = 1 if spread > 30 else 0
        plots = [tag('div', plot, class_='plot', hidden=place != chosen) for place, plot in enumerate(plots)]
        button = tag('button', 'linear / log', type='button', class_='toggle', hidden=True)
    else:
        plots, button = [tag('div', plots[0], class_='plot')], None
    head = tag('div', tag('h3', words(title)), button, class_='chart-head')
    curves = [
        {
            'name': each.name,
            'color': each.color,
            'points': [[step, _round(y)] for step, y in decimate(each.points, 400)],
        }
        for each in series
    ]
    data = Html(json.dumps(curves, separators=(',', ':')).replace('<', '\\u003c'))
    script = tag('script', data, type='application/json')
    return tag('figure', head, _legend(series), plots, script, class_='chart')


def _round(value: float) -> float:
    return float(f'{value:.5g}')


def _legend(series: Sequence[Series]) -> Html:
    keys = [
        tag(
            'span',
            tag('i', class_=f'swatch s{each.color}'),
            f'{each.name} ',
            tag('b', number(each.points[-1][1])),
        )
        for each in series
    ]
    return tag('figcaption', keys, class_='legend')


def _plot(title: str, series: Sequence[Series], last: float, log: bool) -> Html:
    """Returns one drawing with axes and curves."""
    steps = [step for each in series for step, _ in each.points]
    values = [value for each in series for _, value in each.points]
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
        f'{each.name} from {number(each.points[0][1])} to {number(each.points[-1][1])}' for each in series
    )
    return tag(
        'svg',
        _axes(across, up, log),
        [_curve(each, across, up) for each in series],
        viewBox=f'0 0 {WIDTH} {HEIGHT}',
        role='img',
        aria_label=f'{words(title)} over steps: {ends}',
        data_scale=json.dumps({**scale, **box}),
    )


def _axes(across: Scale, up: Scale, log: bool) -> list[Html]:
    """Returns grid lines, tick labels and the names of the axes."""
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


def _curve(series: Series, across: Scale, up: Scale) -> list[Html]:
    """Returns one curve; many noisy points are faint under their moving average."""
    points, color = series.points, f'c{series.color}'

    def path(points: Sequence[tuple[float, float]], kind: str) -> Html:
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


def heat_map(matrix: Sequence[Sequence[float]], names: Sequence[str]) -> Html:
    """Returns a confusion matrix: rows are true classes, columns what was said, shades the share of a row."""
    count = len(matrix)
    cell = 34 if count <= 12 else 26 if count <= 24 else max(6, 620 // count)
    labelled, numbered = count <= 40, count <= 24
    longest = max(len(name) for name in names) if labelled else 0
    side = 30 + min(longest, 16) * 7
    slanted = longest > 3
    over = 26 + (min(longest, 16) * 5 if slanted else 14) if labelled else 26
    size = count * cell
    parts = [
        tag('text', 'called', x=side + size / 2, y=14, text_anchor='middle', class_='unit'),
        tag('text', 'true', x=12, y=over + size / 2, text_anchor='middle', class_='unit',
            transform=f'rotate(-90 12 {over + size / 2})'),
        tag('rect', x=side, y=over, width=size, height=size, class_='frame'),
    ]  # fmt: skip
    for place, name in enumerate(names if labelled else ()):
        middle = place * cell + cell / 2
        name = name if len(name) <= 16 else name[:15] + '…'
        x, y = side + middle, over - 8
        turn = f'rotate(-38 {x} {y})' if slanted else None
        anchor = 'start' if slanted else 'middle'
        parts.append(tag('text', name, x=x, y=y, text_anchor=anchor, transform=turn))
        parts.append(tag('text', name, x=side - 8, y=over + middle, dy='0.35em', text_anchor='end'))
    for true, row in enumerate(matrix):
        for called, value in enumerate(row):
            if value:
                parts.append(_cell(names, row, true, called, side, over, cell, numbered))
    width, height = side + size + (longest * 4 if slanted else 8), over + size + 8
    label = f'Confusion matrix of {count} classes; rows are true classes, columns what they were called'
    return tag('svg', parts, viewBox=f'0 0 {width} {height}', role='img', aria_label=label, class_='heat',
               style=f'max-width:{width * 1.4:.0f}px')  # fmt: skip


def _cell(
    names: Sequence[str],
    row: Sequence[float],
    true: int,
    called: int,
    side: float,
    over: float,
    cell: float,
    numbered: bool,
) -> Html:
    """Returns one cell that is not zero, with its words under the pointer."""
    share = row[called] / (sum(row) or 1)
    x, y = side + called * cell, over + true * cell
    # A single mistake among many must still be seen, hence the root.
    shade = f'{0.1 + 0.9 * math.sqrt(share):.3f}'
    kind = 'right' if true == called else 'wrong'
    text = f'{names[true]} called {names[called]}: {number(row[called])} ({100 * share:.1f}%)'
    count = (
        tag('text', number(row[called]), x=x + cell / 2, y=y + cell / 2, dy='0.35em', text_anchor='middle',
            class_='on' if share > 0.3 else None)
        if numbered
        else None
    )  # fmt: skip
    box = tag(
        'rect', x=x + 1, y=y + 1, width=cell - 2, height=cell - 2, rx=2, class_=kind, fill_opacity=shade
    )
    return tag('g', tag('title', text), box, count)
