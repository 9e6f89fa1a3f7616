"""Sizes, counts and durations as readable text."""


def bytes_text(size: float) -> str:
    """A number of bytes as text, such as '4.71 MiB'."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if abs(size) < 1024:
            return f'{size:.0f} B' if unit == 'B' else f'{size:.2f} {unit}'
        size /= 1024
    return f'{size:.2f} TiB'


def count_text(count: float, unit: str) -> str:
    """A large count with a decimal prefix, such as '3.40 GFLOP'."""
    for prefix in ('', 'k', 'M', 'G', 'T', 'P'):
        if abs(count) < 1000:
            return f'{count:.0f} {unit}' if not prefix else f'{count:.2f} {prefix}{unit}'
        count /= 1000
    return f'{count:.2f} E{unit}'


def time_text(seconds: float) -> str:
    """A duration as text, such as '2 min 05 s'."""
    if seconds < 60:
        return f'{seconds:.1f} s' if seconds < 10 else f'{seconds:.0f} s'
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f'{minutes} min {rest:02d} s'
    hours, minutes = divmod(minutes, 60)
    return f'{hours} h {minutes:02d} min' if hours < 48 else f'{hours // 24} d {hours % 24} h'
