"""The data sets of labelled sequences by name, and those that users bring."""

import collections
import functools
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from research.data.readers import has_reader, sources, without_reader
from research.data.readers.archives import find, open_part
from research.data.readers.fasta import read_fasta
from research.data.readers.rows import Broken, Row, Rows, chain, select
from research.data.readers.tables import row_name
from research.data.sequence.genes import BASES
from research.data.text.labelled_texts import data_folder
from research.errors import UserError, choose, nearest, unpack

FRACTIONS = {'test': 0.2, 'validation': 0.1}
MOTIFS = {'first': 'TATAAT', 'second': 'GGCGCC', 'none': ''}


class Sequences(NamedTuple):
    """Labelled sequences; a row is {'sequence', 'label', ...}."""

    source: Callable[[str], Sequence[Row]]  # (split) -> random-access rows
    about: str


def stratified_parts(rows: Rows, fractions: Mapping[str, float], seed: int = 0) -> dict[str, Rows]:
    """Returns {split: rows}: of each class the same share, copies of a sequence in one split.

    Within a class, sequences are ordered by a hash of the seed and themselves; the first go to the first split
    of `fractions`, and so on, what is left to 'train'. So the choice does not depend on the order of the rows.
    A sequence with several labels counts for the first by name.
    """
    groups: dict[str, list[int]] = collections.defaultdict(list)
    labels: dict[str, str] = {}
    for number, row in enumerate(rows):
        groups[row['sequence']].append(number)
        labels[row['sequence']] = min(labels.get(row['sequence'], row['label']), row['label'])
    chosen: dict[str, list[int]] = {split: [] for split in (*fractions, 'train')}
    for label in sorted(set(labels.values())):
        order = sorted(
            (sequence for sequence in groups if labels[sequence] == label),
            key=lambda sequence: hashlib.sha256(f'{seed} {sequence}'.encode()).digest(),
        )
        start = 0
        for split, fraction in fractions.items():
            stop = start + round(fraction * len(order))
            chosen[split] += [number for sequence in order[start:stop] for number in groups[sequence]]
            start = stop
        chosen['train'] += [number for sequence in order[start:] for number in groups[sequence]]
    return {split: select(rows, np.sort(np.array(numbers, np.int64))) for split, numbers in chosen.items()}


def read_uci(path: str) -> Rows:
    """Returns the rows 'class, name, sequence' of UCI's sets, with blanks anywhere."""
    entry = find(path, 'config.data.folder')[0]
    lines = open_part(entry).read().decode('ascii').splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        cells = [''.join(cell.split()) for cell in line.split(',')]
        if line.strip() and (len(cells) != 3 or not all(cells)):
            raise Broken(f'{entry.name}, line {number}: expected class, name, sequence, got {line!r:.60}')
        if line.strip():
            rows.append({'sequence': cells[2].upper(), 'name': cells[1], 'label': cells[0]})
    return Rows(len(rows), rows.__getitem__, functools.partial(row_name, entry.name))


def by_split(read: Callable[[], Rows], seed: int, examples: int = 0) -> Callable[[str], Rows]:
    """Returns a source that reads and splits once, when it is first asked; 0 trains on all rows that are left."""

    @functools.cache
    def parts() -> dict[str, Rows]:
        found = stratified_parts(read(), FRACTIONS, seed)
        count = len(found['train'])
        if not 0 <= examples <= count:
            raise UserError(f'config.data.examples must be 0 (all) to {count:,}, got {examples}')
        spread = np.arange(examples) * count // max(examples, 1)
        return found | ({'train': select(found['train'], spread)} if examples else {})

    return lambda split: choose(split, parts(), 'split')


def splice(folder: str = '', split_seed: int = 0, examples: int = 0) -> Sequences:
    """Returns 3,190 windows of 60 bases: exon to intron (EI), intron to exon (IE) or neither (N) in the middle.

    Source: UCI, "Molecular Biology (Splice-junction Gene Sequences)", Towell, Noordewier and Shavlik 1991; from
    primates of GenBank 64.1. 185 rows are copies of others.

    Args:
      folder: where splice.data lies; '' for $TESSERA_DATA/gene_sequences.
      split_seed: another one gives other splits.
      examples: train on so many rows alone, evenly spread; 0 for all.
    """
    place = data_folder(folder, 'gene_sequences')
    source = by_split(functools.partial(read_uci, f'{place}/splice.data'), split_seed, examples)
    return Sequences(source, 'UCI splice junctions: 60 bases')


def promoters(folder: str = '', split_seed: int = 0) -> Sequences:
    """Returns 106 windows of 57 bases of E. coli: promoters (+) and others (-).

    Source: UCI, "Molecular Biology (Promoter Gene Sequences)", Harley, Reynolds and Noordewier 1990.
    """
    place = data_folder(folder, 'gene_sequences')
    source = by_split(functools.partial(read_uci, f'{place}/promoters.data'), split_seed)
    return Sequences(source, 'UCI promoters of E. coli: 57 bases')


def arabidopsis(folder: str = '', split_seed: int = 0) -> Sequences:
    """Returns 4,376 windows of 251 bases of Arabidopsis: TATA promoters and other places.

    Source: Umarov and Solovyev 2017, PLOS ONE 12(2): e0171410. The composition of bases alone tells the classes
    apart in part: they come from different regions.
    """
    place = data_folder(folder, 'gene_sequences')

    def read() -> Rows:
        files = {'promoter': 'Arabidopsis_tata.fa.gz', 'other': 'Arabidopsis_non_prom.fa.gz'}
        return chain(
            [
                read_fasta(find(f'{place}/{file}', 'config.data.folder')[0], functools.partial(relabel, label))
                for label, file in files.items()
            ]
        )

    return Sequences(by_split(read, split_seed), 'Arabidopsis, TATA promoters and others: 251 bases')


def relabel(label: str, row: Row, where: str) -> Row:
    """Returns a row with another label."""
    del where
    return {**row, 'label': label}


def motifs(examples: int = 240, width: int = 24, split_seed: int = 0) -> Sequences:
    """Returns random sequences, two thirds of which hold one of two short motifs: for tests."""
    if examples < 30 or width < 12:
        raise UserError(f'config.data: examples must be 30 or more and width 12 or more, got {examples} and {width}')
    generator = random.Random(0)
    rows = []
    for number in range(examples):
        label = list(MOTIFS)[number % len(MOTIFS)]
        letters = ''.join(generator.choice(BASES) for _ in range(width))
        start = generator.randrange(width - 6)
        motif = MOTIFS[label]
        rows.append({'sequence': letters[:start] + motif + letters[start + len(motif) :], 'label': label})
    every = Rows(len(rows), rows.__getitem__, functools.partial(row_name, 'motifs'))
    return Sequences(by_split(lambda: every, split_seed), f'random sequences with motifs: {width} bases')


def gene_set(settings: Mapping[str, Any]) -> Sequences:
    """Returns the set that `config.data` names, or the user's own that its reader reads.

    Raises:
      UserError: for an unknown name or setting.
    """
    if has_reader(settings):
        data = sources(settings, ('sequence', 'label'))
        return Sequences(data.source, data.about)
    sets = {'splice': splice, 'promoters': promoters, 'arabidopsis': arabidopsis, 'motifs': motifs}
    name = settings.get('name', '')
    if name not in sets:
        raise UserError(
            f"config.data.name={name!r}: {nearest(name, sets)}; or read your own by config.data.reader, such as 'fasta'"
        )
    options = {key: value for key, value in without_reader(settings).items() if key != 'folder'}
    given = {'folder': settings['folder']} if settings.get('folder') else {}
    return unpack(sets[name], options | given, 'data')
