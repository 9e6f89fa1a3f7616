"""Formats a data check for a terminal: tables, histograms, findings and a verdict."""

import collections
from collections.abc import Sequence

import numpy as np

from research.data.check.survey import Finding, Survey
from research.data.notes import shorten
from research.data.readers.fields import MISSING
from research.data.table.cells import is_no_value, read_number

BAR_WIDTH = 30  # characters of the longest bar
MAX_LINE_CHARACTERS = 500
MAX_CLASS_ROWS = 20  # lines of the class table


def sizes_text(surveys: Sequence[Survey]) -> list[str]:
    """Row counts of all splits on one line."""
    parts = [
        f'{seen.split} {seen.total:,}'
        + (f' ({len(seen.numbers):,} checked)' if len(seen.numbers) < seen.total else '')
        for seen in surveys
    ]
    return ['rows       ' + ('   '.join(parts) or 'none')]


def labels_text(surveys: Sequence[Survey]) -> list[str]:
    """A table of classes with rows and share in each split, the most frequent first."""
    counters = {seen.split: collections.Counter(seen.labels) for seen in surveys if seen.labels}
    if not counters:
        return []
    total = sum(counters.values(), collections.Counter())
    width = max(5, *(len(name[:30]) for name in total))
    lines = ['', f'{"class":{width}}  ' + '  '.join(f'{split:>16}' for split in counters)]
    for name, _ in total.most_common(MAX_CLASS_ROWS):
        cells = [
            f'{counter[name]:9,} {counter[name] / counter.total():6.1%}' for counter in counters.values()
        ]
        lines.append(f'{name[:30]:{width}}  ' + '  '.join(cells))
    if len(total) > MAX_CLASS_ROWS:
        lines.append(f'... and {len(total) - MAX_CLASS_ROWS:,} more classes')
    return lines


def histogram(values: Sequence[float], title: str, bins: int = 8) -> list[str]:
    """A histogram as lines; the last bin holds everything above the 98th percentile."""
    array = np.asarray(values, float)
    low, high = float(array.min()), float(np.percentile(array, 98))
    whole = bool(np.all(array == array.round()))
    middle, top = number_text(float(np.median(array))), number_text(float(array.max()))
    head = f'{title}: {number_text(low)} to {top}, median {middle}'
    if high <= low:
        return ['', head]
    edges = np.linspace(low, high, bins + 1)
    edges = np.unique(np.ceil(edges)) if whole else edges
    bin_numbers = np.clip(np.searchsorted(edges, array, side='right') - 1, 0, len(edges) - 1)
    counts = np.bincount(bin_numbers, minlength=len(edges))
    names = [f'from {number_text(edge)}' for edge in edges]
    width = max(map(len, names))
    rows = [
        f'  {name:>{width}}  {"#" * round(BAR_WIDTH * count / counts.max()):{BAR_WIDTH}} {count:,}'
        for name, count in zip(names, counts, strict=True)
        if count
    ]
    return ['', head, *rows]


def number_text(value: float) -> str:
    """Formats a number for people: 1,234 or 0.25."""
    return f'{value:,.0f}' if value == round(value) else f'{value:,.3g}'


def fields_text(seen: Survey) -> list[str]:
    """Describes the fields of a split: lengths of texts and sounds, sizes of pictures, columns."""
    lines = []
    for name, texts in seen.texts.items():
        lines += histogram([len(text) for text in texts], f'{seen.split} {name!r}, characters')
    for name, counter in seen.shapes.items():
        lines.append('')
        shown = ', '.join(f'{"x".join(map(str, shape))}: {count:,}' for shape, count in counter.most_common(5))
        lines.append(
            f'{seen.split} {name!r}, height x width x channels: {shown}'
            + (', ...' if len(counter) > 5 else '')
        )
    for name, sounds in seen.sounds.items():
        lines += histogram([seconds for seconds, _, _ in sounds], f'{seen.split} {name!r}, seconds')
    if seen.values:
        lines += ['', f'{seen.split} columns']
        width = max(len(name[:30]) for name in seen.values)
        lines += [f'  {name[:30]:{width}}  {column_text(values)}' for name, values in seen.values.items()]
    return lines


def column_text(values: Sequence) -> str:
    """Describes a column on one line: its range or most frequent values, and missing values."""
    present = [value for value in values if not is_no_value(value, MISSING)]
    missing = f', {len(values) - len(present):,} missing' if len(present) < len(values) else ''
    try:
        array = np.asarray([read_number(value) for value in present])
        text = (
            f'{number_text(array.min())} to {number_text(array.max())}, mean {array.mean():.4g}'
            if present
            else 'nothing'
        )
    except (TypeError, ValueError):
        counter = collections.Counter(map(str, present))
        common = ', '.join(f'{value[:20]} {count:,}' for value, count in counter.most_common(3))
        text = f'{len(counter):,} values: {common}'
    return text + missing


def report_text(title: str, surveys: Sequence[Survey], findings: Sequence[Finding]) -> str:
    """The whole report; its last line is the verdict."""
    lines = [title, '', *sizes_text(surveys), *labels_text(surveys)]
    for seen in surveys:
        if seen.split == 'train':
            lines += fields_text(seen)
    lines.append('')
    for level in ('error', 'warning', 'note'):
        for finding in findings:
            if finding.level == level:
                text = f'{level.upper() if level == "error" else level:8} {finding.split}: {finding.text}'
                lines += text.split('\n')
    return '\n'.join(shorten(line, MAX_LINE_CHARACTERS) for line in [*lines, verdict(findings)])


def verdict(findings: Sequence[Finding]) -> str:
    """One line: whether the data are fit for training."""
    errors, warnings = (sum(finding.level == level for finding in findings) for level in ('error', 'warning'))
    worth = f'{warnings} warning{"s" * (warnings != 1)}'
    if errors:
        return f'verdict: NOT FIT, {errors} error{"s" * (errors != 1)} and {worth}'
    return f'verdict: fit, with {worth}' if warnings else 'verdict: fit, nothing found'
