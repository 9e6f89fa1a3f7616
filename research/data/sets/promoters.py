"""Promoters of E. coli: 106 windows of 57 bases, promoters (+) and others (-).

Source: UCI, "Molecular Biology (Promoter Gene Sequences)", Harley, Reynolds and Noordewier 1990. Licence: CC BY
4.0 at UCI. Splits: none official; 10% validation and 20% test of each class by a hash of the sequence.
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
    'https://github.com/farhan-137/dna-promoter-classifier',
    github_files(
        'farhan-137/dna-promoter-classifier', '585478d4bcbeb8a6293f777d9d1abfae91c6db59',
        ('data/promoters.data', 7_089, '9cba9e8661ab04760d69b857f62259233446f2dce5ec9b515efe0b23c315bb29'),
    ),
)  # fmt: skip


def open(folder: str = '', split_seed: Count = 0, examples: Count = 0) -> DataSet:
    """Opens the set; a row is {'sequence', 'name', 'label'}.

    Args:
      folder: of promoters.data.
      split_seed: seed of the split.
      examples: number of training rows to use, evenly spaced; 0 for all.
    """

    def read() -> Rows:
        return read_uci(located(folder_of(SOURCE, folder), 'promoters.data'))

    source = by_class(read, FRACTIONS, split_seed, examples)
    return DataSet(source, 'UCI promoters of E. coli: 57 bases', fields=('sequence', 'name', 'label'))
