"""Formats a plan as tables, in colour on a terminal and as plain text elsewhere."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from research.capacity.planner import UNREADABLE, overflow_text
from research.units import bytes_text, count_text

MEMORY_PARTS = {
    'parameters': 'float32 weights',
    'statistics': 'other collections, such as batch statistics',
    'average': 'averaged weights (train.ema_decay)',
    'optimizer': 'moments and counters',
    'batch': 'one batch',
    'padding': 'arrays rounded up to tiles',
    'temporaries': 'activations, gradients, gathered weights',
    'outputs': 'results that share no memory with an input',
    'program': 'the compiled code',
}

Section = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def seconds_text(seconds: float) -> str:
    """Formats a duration: '1.2 us', '340 ms', '2.31 s'."""
    for unit, size in (('s', 1.0), ('ms', 1e-3)):
        if seconds >= size:
            return f'{seconds / size:.3g} {unit}'
    return f'{seconds / 1e-6:.3g} us'


def sections(report: Mapping[str, Any]) -> list[Section]:
    """Tables of a report: (title, headers, rows)."""
    tables = [memory_section(report)]
    if report.get('collectives') is not None and 'time' in report:
        tables += [collectives_section(report), time_section(report)]
    if report['search']:
        tables.append(search_section(report))
    if report['attempts']:
        rows = [
            (
                attempt['flags'], attempt['about'],
                f'{"" if attempt["compiled"] else "at least "}{bytes_text(attempt["total"])}',
                ('fits' if attempt['fits'] else 'does not fit') + ('' if attempt['compiled'] else ' (state alone)'),
            )
            for attempt in report['attempts']
        ]  # fmt: skip
        tables.append(('Other settings, each of them tried', ('flags', 'meaning', 'per chip', 'result'), rows))
    return tables


def memory_section(report: Mapping[str, Any]) -> Section:
    """Memory of each chip by part."""
    memory = report['memory']
    rows = [(name, bytes_text(memory[name]), about) for name, about in MEMORY_PARTS.items() if memory.get(name)]
    least = '' if memory['compiled'] else 'at least '
    share = 100 * memory['total'] / memory['usable']
    rows += [
        ('total', f'{least}{bytes_text(memory["total"])}', f'{share:.0f}% of the usable memory'),
        ('usable', bytes_text(memory['usable']), f'of {bytes_text(memory["capacity"])}'),
    ]
    title = 'Memory on each chip' if report['exact'] else 'Memory on each chip, an estimate'
    return title, ('part', 'size', 'description'), rows


def collectives_section(report: Mapping[str, Any]) -> Section:
    """Collectives of one step by kind."""
    rows = [
        (kind, f'{row["count"]:,}', bytes_text(row['bytes']), bytes_text(row['sent']))
        for kind, row in report['collectives'].items()
    ]
    rows = rows or [('unknown' if UNREADABLE in report['notes'] else 'none', '-', '-', '-')]
    return 'Collectives per step (loops multiplied out)', ('kind', 'count', 'data', 'sent by each chip'), rows


def time_section(report: Mapping[str, Any]) -> Section:
    """Expected time of a step."""
    time = report['time']
    rates = report['rates']
    work = f'{count_text(report["flops"]["matrix"], "FLOP")} of matrix products'
    link = rates['interconnect'] / 2e9
    useful = f'{100 * time["useful"]:.0f}% without recomputation'
    rows = [
        ('compute', seconds_text(time['compute']), f'{work} at {rates["flops"] / 1e12:.0f} TFLOP/s per chip'),
        ('memory', seconds_text(time['memory']), f'at {rates["bandwidth"] / 1e9:,.0f} GB/s'),
        ('communication', seconds_text(time['communication']), f'at most {link:,.0f} GB/s each way over all links'),
        ('exposed', seconds_text(time['exposed']), 'communication that does not overlap'),
        ('step', seconds_text(time['expected']), f'bound by {time["bound"]}'),
        ('share of peak', f'{100 * time["share"]:.0f}%', useful),
    ]  # fmt: skip
    return 'Expected time of a step, an estimate from published peaks', ('part', 'time', 'based on'), rows


def search_section(report: Mapping[str, Any]) -> Section:
    """The batch sizes that were compiled."""
    search = report['search']
    limit = report['memory']['usable']
    rows = [
        (f'{int(rows):,}', bytes_text(total), 'fits' if total <= limit else 'does not fit')
        for rows, total in search['tried'].items()
    ]
    scope = f'{len(search["tried"])} sizes compiled, multiples of {search["unit"]}'
    return f'Largest batch that fits: {largest_text(search)} ({scope})', ('rows', 'per chip', 'result'), rows


def largest_text(search: Mapping[str, Any]) -> str:
    """Describes the largest batch, and the bounds between which it is unknown."""
    if not search['largest']:
        return 'none that was tried'
    if search['smallest_over'] == search['largest'] + search['unit']:
        return f'{search["largest"]:,}'
    if search['smallest_over']:
        return f'{search["largest"]:,} at least, below {search["smallest_over"]:,}'
    return f'{search["largest"]:,} at least'


def heading(report: Mapping[str, Any]) -> list[str]:
    """Lines above the tables."""
    mesh = ' x '.join(f'{axis} {size}' for axis, size in report['mesh'].items() if size > 1) or 'one chip'
    parts = f' in {report["microbatches"]} parts' if report['microbatches'] > 1 else ''
    flops = report['flops']
    lines = [
        f'Plan of {report.get("config", "")} on {report["topology"]}: {report["chips"]} chips, mesh {mesh}',
        f'{report["parameters"]:,} parameters; batch {report["batch_size"]:,}{parts}',
        f'{count_text(flops["total"], "FLOP")} per step, counted from the program '
        f'({count_text(flops["useful"], "FLOP")} of matrix products without recomputation by remat)',
        *(f'({note})' for note in flops['notes']),
        f'compiled with {report["compiler"]} in {report["compile_seconds"]:.0f} s',
    ]
    if not report['exact']:
        lines.append(
            'An estimate: the program was compiled for fake CPU devices. Parameters, optimizer state and batch are '
            'exact; temporaries are larger than on a GPU or TPU (no fused attention, 16-bit sums in 32 bits).'
        )
    return lines


def plan_text(report: Mapping[str, Any]) -> str:
    """Formats the whole report as plain text."""
    lines = heading(report)
    for title, headers, rows in sections(report):
        table = [tuple(headers), *rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(headers))]
        lines += ['', title]
        for row in table:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            lines.append('  ' + '  '.join(cells).rstrip())
    return '\n'.join([*lines, *closing(report)])


def closing(report: Mapping[str, Any]) -> list[str]:
    """The formula, notes and the verdict."""
    lines = ['']
    if 'time' in report:
        lines += [*report['time']['formula'], *(f'({note})' for note in report['notes']), '']
    fitting = sum(attempt['fits'] for attempt in report['attempts'])
    verdict = overflow_text(report)
    if verdict:
        lines.append(verdict[0].upper() + verdict[1:] + '.')
        if report['attempts']:
            lines.append(f'{fitting} of the {len(report["attempts"])} other settings that were tried fit, see above.')
    else:
        lines.append('It fits.')
    return lines


def print_plan(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints a report: tables on a terminal, plain text elsewhere."""
    console = console or Console()
    if not console.is_terminal:
        print(plan_text(report))
        return
    for line in heading(report):
        console.print(line, highlight=False)
    for title, headers, rows in sections(report):
        table = Table(*headers, title=title, title_justify='left')
        for row in rows:
            table.add_row(*row, style='bold' if row[0] in ('total', 'step') else None)
        console.print(table)
    style = 'green' if report['memory']['fits'] else 'bold red'
    *lines, last = closing(report)
    console.print('\n'.join(lines), highlight=False)
    console.print(last, style=style, highlight=False)
