"""What the report shows of a run's metrics, as plain data: verdict, tables, learning curves, classes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from research.report.charts import Chart, Series, heat_map, line_chart
from research.report.html import number, words

CHOSEN = ' (chosen)'  # ends the kind of a record that describes the chosen weights
SHOWN = 4  # learning curves that are always visible
LARGEST_MATRIX = 120  # classes of a confusion matrix that is drawn
# Curves that show how training went rather than how good the model is.
SECONDARY = ('learning_rate', 'gradient_norm', 'update_norm', 'parameter_norm', 'weight')


class Sentence(NamedTuple):
    """A sentence around one value, which is emphasized."""

    before: str
    value: str
    after: str


class Verdict(NamedTuple):
    """Whether a run reached its expected ranges and baselines; `state` is 'fail', 'pass', 'poor' or 'none'."""

    state: str
    badge: str
    sentences: Sequence[Sentence] = ()
    ranged: bool = False  # the config expects a range of some metric
    warnings: Sequence[str] = ()


class Bar(NamedTuple):
    """Value, baseline and expected range on one line, in percent of its length."""

    fill: float
    baseline: float | None
    low: float | None
    high: float | None
    poor: bool


class Row(NamedTuple):
    """One metric in the table of a split."""

    name: str
    description: str
    better: str  # 'higher', 'lower' or ''
    value: str
    bar: Bar | None
    baseline: str
    baseline_description: str
    expected: str
    passed: bool | None
    remark: str
    poor: bool


class Table(NamedTuple):
    """The metrics of a split that are single numbers, and what must be equal to compare them with others."""

    split: str
    rows: Sequence[Row]
    signature: str
    settings: str


class Curves(NamedTuple):
    """Learning curves: those always visible, more metrics, and how training went."""

    shown: Sequence[Chart]
    more: Sequence[Chart]
    training: Sequence[Chart]


class Confusion(NamedTuple):
    """A confusion matrix with its most frequent mistakes as (true, predicted, count); a large one has no drawing."""

    name: str
    classes: int
    drawing: Markup | None
    right: str
    total: str
    mistakes: Sequence[tuple[str, str, str]]


class Classes(NamedTuple):
    """The metrics of a split class by class; `rows` are (class, one value or None per column)."""

    split: str
    confusions: Sequence[Confusion]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]]


def scalars(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Selects the metrics of a split that are single numbers."""
    return {name: row for name, row in entry['metrics'].items() if not isinstance(row['value'], (list, dict))}


def below_baseline(row: Mapping[str, Any]) -> bool:
    """Checks whether a metric is worse than its trivial baseline, or no better."""
    value, baseline, better = row['value'], row.get('baseline'), row.get('better')
    if baseline is None or not better or isinstance(value, (list, dict)):
        return False
    return not (value > baseline if better == 'higher' else value < baseline)


def ordered(metrics: Mapping[str, Any]) -> list[str]:
    """Sorts the splits: test, validation, then the others."""
    rank = {'test': 0, 'validation': 1}
    return sorted(metrics, key=lambda split: (rank.get(split, 2), split))


def verdict(metrics: Mapping[str, Any], best: str = '') -> Verdict:
    """Judges a run by its expected ranges and baselines.

    Args:
      metrics: the content of metrics.json.
      best: the metric that chose the weights; it leads where no range is expected.
    """
    rows = [(split, name, row) for split in ordered(metrics) for name, row in scalars(metrics[split]).items()]
    if not rows:
        return Verdict('none', 'Not measured yet')
    ranged = [triple for triple in rows if triple[2].get('expected')]
    failed = [triple for triple in ranged if triple[2].get('passed') is False]
    poor = [triple for triple in rows if below_baseline(triple[2])]
    state = 'fail' if failed else 'pass' if ranged else 'poor' if poor else 'none'
    badge = {'fail': 'FAIL', 'pass': 'PASS', 'poor': 'WORSE THAN BASELINE', 'none': 'MEASURED'}[state]
    leading = failed or ranged or [triple for triple in rows if triple[1] == best] or rows
    sentences = [_sentence(*triple) for triple in leading[: 3 if ranged else 1]]
    return Verdict(state, badge, sentences, bool(ranged), [_warning(*triple) for triple in poor[:3]])


def _sentence(split: str, name: str, row: Mapping[str, Any]) -> Sentence:
    after = ''
    if row.get('expected'):
        after = f', {"inside" if row.get("passed") else "outside"} the expected {_range(*row["expected"])}'
    if row.get('baseline') is not None and not below_baseline(row):
        relation = 'better than' if row.get('better') else 'compared with'
        after += f', {relation} the baseline of {_baseline(row)}'
    return Sentence(f'{words(name).capitalize()} on the {split} split is ', number(row['value']), f'{after}.')


def _warning(split: str, name: str, row: Mapping[str, Any]) -> str:
    relation = 'no better' if row['value'] == row['baseline'] else 'worse'
    measured = f'{words(name).capitalize()} on {split}, {number(row["value"])},'
    return f'{measured} is {relation} than its baseline, {_baseline(row)}.'


def _baseline(row: Mapping[str, Any]) -> str:
    return f'{number(row["baseline"])} ({row.get("baseline_about") or "the trivial baseline"})'


def _range(low: float, high: float) -> str:
    return number(low) if low == high else f'{number(low)} to {number(high)}'


def tables(metrics: Mapping[str, Any]) -> list[Table]:
    """Makes a table of each split's metrics, the most important split first."""
    return [
        Table(split, [_row(name, row) for name, row in scalars(metrics[split]).items()],
              *_signature(split, metrics[split]))
        for split in ordered(metrics)
    ]  # fmt: skip


def _row(name: str, row: Mapping[str, Any]) -> Row:
    remark = row.get('verdict') or ''
    if row.get('baseline_about'):  # runs before version 0.2 repeat it
        remark = remark.replace(row['baseline_about'], 'its baseline')
    return Row(
        name=words(name),
        description=row.get('about') or '',
        better=row.get('better') or '',
        value=number(row['value']),
        bar=bar(row),
        baseline='' if row.get('baseline') is None else number(row['baseline']),
        baseline_description=row.get('baseline_about') or '',
        expected=_range(*row['expected']) if row.get('expected') else '',
        passed=row.get('passed'),
        remark=remark[:1].upper() + remark[1:],
        poor=below_baseline(row),
    )


def bar(row: Mapping[str, Any]) -> Bar | None:
    """Puts a metric, its baseline and its range on one line from 0; None where there is nothing to compare."""
    low, high = row.get('expected') or (None, None)
    numbers = [value for value in (row['value'], row.get('baseline'), low, high) if value is not None]
    if len(numbers) < 2 or not all(math.isfinite(value) and value >= 0 for value in numbers):
        return None
    scale = 100 / (1.0 if max(numbers) <= 1 else max(numbers))
    marks = (None if value is None else scale * value for value in (row.get('baseline'), low, high))
    return Bar(scale * row['value'], *marks, poor=below_baseline(row) or row.get('passed') is False)


def _signature(split: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    """Lists what must be equal for two such metrics to be compared: the measurement, and the settings."""
    signature = entry.get('signature') or {}
    texts = [f'{split} split, step {number(entry.get("step"))}']
    for name, value in signature.items():
        if name not in ('split', 'settings', 'step') and not isinstance(value, (dict, list)):
            texts.append(f'{words(name)} {number(value)}')
    settings = []
    for name, value in (signature.get('settings') or {}).items():
        inner = value.items() if isinstance(value, dict) else ((name, value),)
        settings += [f'{name}.{key}={item}' if key != name else f'{name}={item}' for key, item in inner]
    return '; '.join(texts), ', '.join(settings)


def panels(records: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> dict[str, list[Series]]:
    """Groups records as {metric: curves}: the same metric of all groups and splits is one chart.

    Args:
      records: of metrics.jsonl; of two with the same step and kind the later one counts.
      groups: the trained parameter groups; a record's name may begin with one and a '/'.
    """
    curves_of: dict[str, dict[tuple[str, str], dict[int, float]]] = {}
    for record in records:
        for name, value in record['values'].items():
            if not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            first, slash, rest = name.partition('/')
            group, metric = (first, rest) if slash and (first in groups or not groups) else ('', name)
            curve = curves_of.setdefault(metric, {}).setdefault((group, record['kind']), {})
            curve[record['step']] = float(value)
    keys = dict.fromkeys(
        (group, kind.removesuffix(CHOSEN)) for curves in curves_of.values() for group, kind in curves
    )
    # Trained groups have the first colours, in any order of records.
    colors = {key: index % 6 for index, key in enumerate(sorted(keys, key=lambda key: key[1] != 'train'))}
    charts = {}
    for metric, curves in curves_of.items():
        charts[metric] = []
        for (group, kind), points in curves.items():
            color = colors[group, kind.removesuffix(CHOSEN)]
            label = ' '.join(part for part in (group, '' if group and kind == 'train' else kind) if part)
            charts[metric].append(Series(label, color, sorted(points.items()), kind.endswith(CHOSEN)))
        charts[metric].sort(key=lambda curve: curve.color)
    return charts


def curves(records: Sequence[Mapping[str, Any]], groups: Sequence[str], best: str = '') -> Curves | None:
    """Draws the learning curves, losses and `best` first; None without a curve of two points."""
    # A metric that was measured once is in the table above.
    charts = {
        name: series
        for name, series in panels(records, groups).items()
        if any(len(curve.points) > 1 for curve in series)
    }
    if not charts:
        return None

    def rank(name: str) -> tuple[bool, bool, bool]:
        several = len({curve.color for curve in charts[name]}) > 1
        return ('loss' not in name, name != best, not several)

    primary = sorted((name for name in charts if name not in SECONDARY), key=rank)
    last = max(step for series in charts.values() for curve in series for step, _ in curve.points)
    drawn = {name: line_chart(name, charts[name], last) for name in charts}
    return Curves(
        [drawn[name] for name in primary[:SHOWN]],
        [drawn[name] for name in primary[SHOWN:]],
        [drawn[name] for name in charts if name in SECONDARY],
    )


def classes(metrics: Mapping[str, Any], names: Sequence[str]) -> Classes | None:
    """Collects confusion matrices and per-class metrics of the first split that has any."""
    for split in ordered(metrics):
        values = {name: row['value'] for name, row in metrics[split]['metrics'].items()}
        confusions = [
            confusion(words(name), value, class_names(names, len(value)))
            for name, value in values.items()
            if _is_matrix(value)
        ]
        lists = {name: value for name, value in values.items() if _is_flat(value)}
        if confusions or lists:
            columns = [words(name.removesuffix('_per_class')) for name in lists]
            return Classes(split, confusions, columns, _per_class(list(lists.values()), names))
    return None


def class_names(names: Sequence[str], count: int) -> list[str]:
    """Names each of `count` classes, by its number where `names` are of another count."""
    return list(names) if len(names) == count else [str(index) for index in range(count)]


def _is_flat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, (int, float)) for item in value)


def _is_matrix(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_flat(row) and len(row) == len(value) for row in value)


def confusion(name: str, matrix: Sequence[Sequence[float]], names: Sequence[str]) -> Confusion:
    """Draws a confusion matrix and lists its most frequent mistakes."""
    mistakes = sorted(
        ((value, true, predicted) for true, row in enumerate(matrix) for predicted, value in enumerate(row)
         if value and true != predicted), reverse=True,
    )  # fmt: skip
    wrong, total = sum(value for value, _, _ in mistakes), sum(map(sum, matrix))
    frequent = [(names[true], names[predicted], number(value)) for value, true, predicted in mistakes[:6]]
    drawing = heat_map(matrix, names) if len(matrix) <= LARGEST_MATRIX else None
    return Confusion(name, len(matrix), drawing, number(total - wrong), number(total), frequent)


def _per_class(
    lists: Sequence[Sequence[float]], names: Sequence[str]
) -> list[tuple[str, Sequence[float | None]]]:
    count = max((len(values) for values in lists), default=0)
    return [
        (name, [values[index] if index < len(values) else None for values in lists])
        for index, name in enumerate(class_names(names, count))
    ]
