"""Promoters of E. coli: 106 windows of 57 bases, promoters (+) and others (-).

Source: UCI, "Molecular Biology (Promoter Gene Sequences)", Harley, Reynolds and Noordewier 1990. Licence: CC BY
4.0 at UCI. Splits: none official; 10% validation and 20% test of each class by a hash of the sequence.
"""

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.sequence.uci import FRACTIONS, read_uci
from research.data.splitting import by_class

FOLDER = 'gene_sequences'


def open(folder: str = '', split_seed: int = 0, examples: int = 0) -> DataSet:
    """Opens the set; a row is {'sequence', 'name', 'label'}.

    Args:
      folder: of promoters.data.
      split_seed: another one gives other splits.
      examples: train on this many rows, evenly spread; 0: all.
    """
    source = by_class(lambda: read_uci(f'{folder_of(FOLDER, folder)}/promoters.data'), FRACTIONS, split_seed, examples)
    return DataSet(source, 'UCI promoters of E. coli: 57 bases', fields=('sequence', 'name', 'label'))
