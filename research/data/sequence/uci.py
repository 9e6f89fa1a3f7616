"""Gene sequences of the UCI repository: lines 'class, name, sequence'."""

from research.data.readers.archives import find, read_bytes
from research.data.readers.rows import Broken, Rows, in_memory

FRACTIONS = {'test': 0.2, 'validation': 0.1}  # of the sequences of each class


def read_uci(path: str) -> Rows:
    """Reads rows {'sequence', 'name', 'label'}; white space is ignored."""
    entry = find(path, 'config.data.folder')[0]
    rows = []
    for number, line in enumerate(read_bytes(entry).decode('ascii').splitlines(), 1):
        cells = [''.join(cell.split()) for cell in line.split(',')]
        if line.strip() and (len(cells) != 3 or not all(cells)):
            raise Broken(f'{entry.name}, line {number}: expected class, name, sequence, got {line!r:.60}')
        if line.strip():
            rows.append({'sequence': cells[2].upper(), 'name': cells[1], 'label': cells[0]})
    return in_memory(rows, entry.name)
