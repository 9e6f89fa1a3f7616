"""Splice junctions of primates: 3,190 windows of 60 bases, exon to intron (EI), intron to exon (IE) or neither (N).

Source: UCI, "Molecular Biology (Splice-junction Gene Sequences)", Towell, Noordewier and Shavlik 1991, from GenBank
64.1. Licence: CC BY 4.0 at UCI. Splits: none official; 10% validation and 20% test of each class by a hash of the
sequence. Oddities: 185 rows are copies of others; copies stay in one split.
"""

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.rows import Rows
from research.data.sequence.uci import FRACTIONS, read_uci
from research.data.source import Source, github_files
from research.data.splitting import by_class
from research.errors import Count

SOURCE = Source(
    'gene_sequences',
    'CC BY 4.0 at UCI',
    'https://github.com/drusk/splice-junction-gene-sequences',
    github_files(
        'drusk/splice-junction-gene-sequences', 'e862a929e3d82a881bb7abc8e0ffba3f68cf9a8c',
        ('data/splice.data', 319_000, 'ebbae10c85d3c285e2a2489a37e42bc2ee8d91d15005e391a9962fa3389a114f'),
    ),
)  # fmt: skip


def open(folder: str = '', split_seed: Count = 0, examples: Count = 0) -> DataSet:
    """Opens the set; a row is {'sequence', 'name', 'label'}.

    Args:
      folder: of splice.data.
      split_seed: seed of the split.
      examples: number of training rows to use, evenly spaced; 0 for all.
    """

    def read() -> Rows:
        return read_uci(located(folder_of(SOURCE, folder), 'splice.data'))

    source = by_class(read, FRACTIONS, split_seed, examples)
    return DataSet(source, 'UCI splice junctions: 60 bases', fields=('sequence', 'name', 'label'))
