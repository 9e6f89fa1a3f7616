"""Random base sequences, two thirds of which contain one of two short motifs: for tests and first tries.

Source: generated from a fixed seed. Licence: that of the project. Splits: 10% validation and 20% test of each class by
a hash of the sequence.
"""

import random
from typing import Annotated

from research.data.dataset import DataSet
from research.data.readers.rows import Row, in_memory
from research.data.sequence.genes import BASES
from research.data.sequence.uci import FRACTIONS
from research.data.splitting import by_class
from research.errors import Count, Range

MOTIFS = {'first': 'TATAAT', 'second': 'GGCGCC', 'none': ''}


def open(
    examples: Annotated[int, Range(30)] = 240, width: Annotated[int, Range(12)] = 24, split_seed: Count = 0
) -> DataSet:
    """Opens the set; a row is {'sequence', 'label'}.

    Args:
      examples: rows of all splits together, 30 or more.
      width: bases per sequence, 12 or more.
      split_seed: seed of the split.
    """
    source = by_class(lambda: in_memory(make_rows(examples, width), 'motifs'), FRACTIONS, split_seed)
    return DataSet(source, f'random sequences with motifs: {width} bases', fields=('sequence', 'label'))


def make_rows(examples: int, width: int) -> list[Row]:
    """Generates the rows: the label's motif overwrites a random position."""
    generator = random.Random(0)
    rows = []
    for number in range(examples):
        label = list(MOTIFS)[number % len(MOTIFS)]
        letters = ''.join(generator.choice(BASES) for _ in range(width))
        start = generator.randrange(width - 6)
        motif = MOTIFS[label]
        rows.append({'sequence': letters[:start] + motif + letters[start + len(motif) :], 'label': label})
    return rows
