"""Splice junctions of primates: 3,190 windows of 60 bases, exon to intron (EI), intron to exon (IE) or neither (N).

Source: UCI, "Molecular Biology (Splice-junction Gene Sequences)", Towell, Noordewier and Shavlik 1991, from GenBank
64.1. Licence: CC BY 4.0 at UCI. Splits: none official; 10% validation and 20% test of each class by a hash of the
sequence. Oddities: 185 rows are copies of others, which stay in one split.
"""

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.sequence.uci import FRACTIONS, read_uci
from research.data.splitting import by_class

FOLDER = 'gene_sequences'


def open(folder: str = '', split_seed: int = 0, examples: int = 0) -> DataSet:
    """Opens the set; a row is {'sequence', 'name', 'label'}.

    Args:
      folder: of splice.data.
      split_seed: another one gives other splits.
      examples: train on this many rows, evenly spread; 0: all.
    """
    source = by_class(lambda: read_uci(f'{folder_of(FOLDER, folder)}/splice.data'), FRACTIONS, split_seed, examples)
    return DataSet(source, 'UCI splice junctions: 60 bases', fields=('sequence', 'name', 'label'))
