"""Sections of the report about how good a run is: verdict, metrics, learning curves, classes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from research.report.charts import Series, heat_map, line_chart
from research.report.html import Html, details, note, number, section, tag, words

CHOSEN = ' (chosen)'  # ends the kind of a record that describes the weights that were kept
SHOWN = 4  # learning curves that are always visible
# Curves that tell how training went rather than how good it is.
SECONDARY = ('learning_rate', 'gradient_norm', 'update_norm', 'parameter_norm', 'weight')


def scalars(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Returns the metrics of a split that are single numbers."""
    return {name: row for name, row in entry['metrics'].items() if not isinstance(row['value'], (list, dict))}


def below_baseline(row: Mapping[str, Any]) -> bool:
    """Returns whether a metric is worse than its trivial baseline, or no better."""
    value, baseline, better = row['value'], row.get('baseline'), row.get('better')
    if baseline is None or not better or isinstance(value, (list, dict)):
        return False
    return not (value > baseline if better == 'higher' else value < baseline)


def ordered(metrics: Mapping[str, Any]) -> list[str]:
    """Returns the splits, the one that counts most first."""
    rank = {'test': 0, 'validation': 1}
    return sorted(metrics, key=lambda split: (rank.get(split, 2), split))


def verdict(metrics: Mapping[str, Any], best: str = '') -> Html:
    """Returns the line that says whether the run is as good as expected, in words.

    Args:
      metrics: the content of metrics.json.
      best: the metric that chose the weights; it leads where no range is expected.
    """
    rows = [(split, name, row) for split in ordered(metrics) for name, row in scalars(metrics[split]).items()]
    if not rows:
        return tag('div', tag('strong', 'Not measured yet', class_='badge none'), class_='verdict none')
    ranged = [each for each in rows if each[2].get('expected')]
    failed = [each for each in ranged if each[2].get('passed') is False]
    poor = [each for each in rows if below_baseline(each[2])]
    state = 'fail' if failed else 'pass' if ranged else 'poor' if poor else 'none'
    badge = {'fail': 'FAIL', 'pass': 'PASS', 'poor': 'BELOW BASELINE', 'none': 'MEASURED'}[state]
    lead = failed or ranged or [each for each in rows if each[1] == best] or rows
    sentences = [tag('p', _sentence(*each)) for each in lead[: 3 if ranged else 1]]
    if not ranged:
        sentences.append(note('The config expects no range, so there is nothing to pass or fail.'))
    for split, name, row in poor[:3]:
        stands = 'no better' if row['value'] == row['baseline'] else 'worse'
        metric = f'{words(name).capitalize()} on {split}, {number(row["value"])},'
        text = f'{metric} is {stands} than its baseline, {_baseline(row)}.'
        sentences.append(tag('p', text, class_='warn'))
    return tag(
        'div', tag('strong', badge, class_=f'badge {state}'), tag('div', sentences), class_=f'verdict {state}'
    )


def _baseline(row: Mapping[str, Any]) -> str:
    about = row.get('baseline_about') or 'the trivial baseline'
    return f'{number(row["baseline"])} ({about})'


def _range(low: float, high: float) -> str:
    return number(low) if low == high else f'{number(low)} to {number(high)}'


def _sentence(split: str, name: str, row: Mapping[str, Any]) -> list[Any]:
    """Returns a metric as a sentence: value, expected range, baseline."""
    parts = [f'{words(name).capitalize()} on the {split} split is ', tag('b', number(row['value']))]
    if row.get('expected'):
        low, high = row['expected']
        where = 'inside' if row.get('passed') else 'outside'
        parts.append(f', {where} the expected {_range(low, high)}')
    if row.get('baseline') is not None and not below_baseline(row):
        stands = 'better than' if row.get('better') else 'beside'
        parts.append(f', {stands} the baseline of {_baseline(row)}')
    return [*parts, '.']


def metrics_section(metrics: Mapping[str, Any]) -> Html:
    """Returns the metrics of every split as tables, with baselines, expected ranges and signatures."""
    if not metrics:
        return section('metrics', 'Metrics', note('There is no metrics.json: the run has not been measured.'))
    first, *rest = ordered(metrics)
    parts = [_metrics_table(first, metrics[first])]
    parts += [details(f'{split.capitalize()} split', _metrics_table(split, metrics[split])) for split in rest]
    return section('metrics', 'Metrics', parts)


def _metrics_table(split: str, entry: Mapping[str, Any]) -> list[Html]:
    head = tag(
        'tr',
        [tag('th', name, scope='col') for name in ('Metric', 'Value', 'Baseline', 'Expected', 'Verdict')],
    )
    rows = [_metric_row(name, row) for name, row in scalars(entry).items()]
    return [tag('table', tag('thead', head), tag('tbody', rows), class_='metrics'), _signature(split, entry)]


def _metric_row(name: str, row: Mapping[str, Any]) -> Html:
    expected = row.get('expected')
    passed = {True: tag('span', 'PASS', class_='chip pass'), False: tag('span', 'FAIL', class_='chip fail')}
    said = row.get('verdict') or ''
    if row.get('baseline_about'):  # it stands in the column beside
        said = said.replace(row['baseline_about'], 'its baseline')
    judgement = tag('span', said[:1].upper() + said[1:], class_='warn' if below_baseline(row) else None)
    baseline, lone = number(row.get('baseline')), 'empty' if row.get('baseline') is None else None
    better = {'higher': '↑', 'lower': '↓'}.get(row.get('better', ''), '')
    meaning = {'higher': 'higher is better', 'lower': 'lower is better'}.get(row.get('better', ''))
    title = [tag('b', words(name)), ' ', tag('span', better, class_='arrow', title=meaning) if better else '']
    return tag(
        'tr',
        tag('th', title, tag('small', row.get('about', '')), scope='row'),
        tag('td', tag('span', number(row['value']), class_='value'), _bar(row), data_label='Value'),
        tag('td', baseline, tag('small', row.get('baseline_about')), data_label='Baseline', class_=lone),
        tag(
            'td',
            _range(*expected) if expected else '–',
            data_label='Expected',
            class_=None if expected else 'empty',
        ),
        tag(
            'td',
            passed.get(row.get('passed')),
            ' ',
            judgement,
            data_label='Verdict',
            class_=None if said else 'empty',
        ),
    )


def _bar(row: Mapping[str, Any]) -> Html | None:
    """Returns value, baseline and expected range on one line from 0; None where that says nothing."""
    numbers = [row['value'], row.get('baseline'), *(row.get('expected') or ())]
    numbers = [value for value in numbers if value is not None]
    if len(numbers) < 2 or not all(math.isfinite(value) and value >= 0 for value in numbers):
        return None
    most = 1.0 if max(numbers) <= 1 else max(numbers)

    def percent(value: float) -> str:
        return f'{100 * value / (most or 1):.1f}%'

    parts = []
    if row.get('expected'):
        low, high = row['expected']
        parts.append(tag('i', class_='range', style=f'left:{percent(low)};width:{percent(high - low)}'))
    kind = 'fill poor' if below_baseline(row) or row.get('passed') is False else 'fill'
    parts.append(tag('i', class_=kind, style=f'width:{percent(row["value"])}'))
    if row.get('baseline') is not None:
        parts.append(tag('i', class_='tick', style=f'left:{percent(row["baseline"])}', title='baseline'))
    return tag('span', parts, class_='bar', aria_hidden='true')


def _signature(split: str, entry: Mapping[str, Any]) -> Html:
    """Returns what must be equal for two such metrics to be compared."""
    signature = entry.get('signature') or {}
    texts = [f'{split} split, step {number(entry.get("step"))}']
    for name, value in signature.items():
        if name not in ('split', 'settings', 'step') and not isinstance(value, (dict, list)):
            texts.append(f'{words(name)} {number(value)}')
    settings = []
    for name, value in (signature.get('settings') or {}).items():
        inner = value.items() if isinstance(value, dict) else ((name, value),)
        settings += [f'{name}.{key}={each}' if key != name else f'{name}={each}' for key, each in inner]
    return tag('p', 'Measured on: ', '; '.join(texts), '. ', tag('code', ', '.join(settings)), class_='note')


def panels(records: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> dict[str, list[Series]]:
    """Returns {metric: curves}: the same metric of all groups and splits is one chart.

    Args:
      records: of metrics.jsonl; of two with one step and kind the later counts.
      groups: the trained parameter groups; a record's name may begin with one and a '/'.
    """
    found: dict[str, dict[tuple[str, str], dict[int, float]]] = {}
    for record in records:
        for name, value in record['values'].items():
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            first, slash, rest = name.partition('/')
            group, metric = (first, rest) if slash and (first in groups or not groups) else ('', name)
            curve = found.setdefault(metric, {}).setdefault((group, record['kind']), {})
            curve[record['step']] = float(value)
    keys = dict.fromkeys(
        (group, kind.removesuffix(CHOSEN)) for curves in found.values() for group, kind in curves
    )
    # What is trained has the first colours, whatever was recorded first.
    colors = {key: place % 6 for place, key in enumerate(sorted(keys, key=lambda key: key[1] != 'train'))}
    charts = {}
    for metric, curves in found.items():
        charts[metric] = []
        for key, points in curves.items():
            group, kind = key
            color = colors[group, kind.removesuffix(CHOSEN)]
            label = ' '.join(part for part in (group, '' if group and kind == 'train' else kind) if part)
            marks = kind.endswith(CHOSEN)
            charts[metric].append(Series(label, color, sorted(points.items()), marks))
        charts[metric].sort(key=lambda curve: curve.color)
    return charts


def curves_section(records: Sequence[Mapping[str, Any]], groups: Sequence[str], best: str = '') -> Html:
    """Returns the learning curves: losses and metrics first, how training went below."""
    charts = panels(records, groups)
    # A chart needs a line: a metric that was measured once is in the table above.
    charts = {name: each for name, each in charts.items() if any(len(curve.points) > 1 for curve in each)}
    if not charts:
        return section(
            'curves', 'Learning curves', note('There is no metrics.jsonl with records to draw yet.')
        )

    def rank(name: str) -> tuple[bool, bool, bool]:
        both = len({curve.color for curve in charts[name]}) > 1
        return ('loss' not in name, name != best, not both)

    primary = sorted((name for name in charts if name not in SECONDARY), key=rank)
    last = max(step for curves in charts.values() for curve in curves for step, _ in curve.points)
    drawn = {name: line_chart(name, charts[name], last) for name in charts}
    parts = [tag('div', [drawn[name] for name in primary[:SHOWN]], class_='charts')]
    if primary[SHOWN:]:
        parts.append(
            details('More metrics', tag('div', [drawn[name] for name in primary[SHOWN:]], class_='charts'))
        )
    secondary = [name for name in charts if name in SECONDARY]
    if secondary:
        title = 'How training went: ' + ', '.join(map(words, secondary))
        parts.append(details(title, tag('div', [drawn[name] for name in secondary], class_='charts')))
    return section('curves', 'Learning curves', parts)


def classes_section(metrics: Mapping[str, Any], names: Sequence[str]) -> Html | None:
    """Returns what is known class by class: the confusion matrix and metrics that are lists."""
    for split in ordered(metrics):
        nested = {
            name: row
            for name, row in metrics[split]['metrics'].items()
            if isinstance(row['value'], (list, dict))
        }
        if nested:
            break
    else:
        return None
    parts = []
    for name, row in nested.items():
        value = row['value']
        if isinstance(value, list) and value and all(isinstance(each, list) for each in value):
            if len(value) == len(value[0]):
                parts.append(_confusion(name, row, class_names(names, len(value))))
    lists = {name: row for name, row in nested.items() if _flat(row['value'])}
    if lists:
        parts.append(_per_class(lists, names))
    return (
        section('classes', f'Class by class, {split} split', tag('div', parts, class_='classes'))
        if parts
        else None
    )


def class_names(names: Sequence[str], count: int) -> list[str]:
    """Returns a name for each of `count` classes."""
    return list(names) if len(names) == count else [str(index) for index in range(count)]


def _flat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, (int, float)) for each in value)


def _confusion(name: str, row: Mapping[str, Any], names: Sequence[str]) -> Html:
    """Returns the heat map, and its commonest mistakes in words."""
    matrix = row['value']
    if len(matrix) > 120:
        return note(f'{words(name)} of {len(matrix)} classes is too large to draw; it is in metrics.json.')
    mistakes = sorted(
        ((value, true, called) for true, line in enumerate(matrix) for called, value in enumerate(line)
         if value and true != called), reverse=True,
    )  # fmt: skip
    listed = [
        tag('li', tag('b', names[true]), ' called ', tag('b', names[called]), f': {number(value)}')
        for value, true, called in mistakes[:6]
    ]
    commonest = [tag('h4', 'Commonest mistakes'), tag('ul', listed, class_='plain')] if listed else []
    wrong, total = sum(value for value, _, _ in mistakes), sum(map(sum, matrix))
    summary = f'{number(total - wrong)} of {number(total)} are on the diagonal.'
    return tag(
        'figure',
        tag('h3', words(name)),
        heat_map(matrix, names),
        tag('figcaption', note(summary), commonest),
        class_='confusion',
    )


def _per_class(lists: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Html:
    """Returns metrics that are lists as one table, a row for each class, with bars where they are shares."""
    count = max(len(row['value']) for row in lists.values())
    names = class_names(names, count)
    titles = [words(name.removesuffix('_per_class')) for name in lists]
    head = tag('tr', [tag('th', title, scope='col') for title in ('', *titles)])

    def cell(value: float | None) -> Html:
        if value is None:
            return tag('td', '–')
        share = f'--share:{100 * value:.1f}%' if 0 <= value <= 1 else None
        return tag('td', tag('span', f'{value:.3f}' if share else number(value)), style=share, class_='share')

    rows = [
        tag(
            'tr',
            tag('th', names[place], scope='row'),
            [cell(row['value'][place] if place < len(row['value']) else None) for row in lists.values()],
        )
        for place in range(count)
    ]
    table = tag('table', tag('thead', head), tag('tbody', rows), class_='small')
    return tag('div', table, class_='per-class')
