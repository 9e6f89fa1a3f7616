"""Arabidopsis: 4,376 windows of 251 bases, TATA promoters and other regions.

Source: Umarov and Solovyev 2017, PLOS ONE 12(2): e0171410. Licence: unclear.
Splits: none official; 10% validation and 20% test of each class by a hash of the sequence.
Oddities: the composition of bases alone tells the classes apart in part, as they come from different regions.
"""

import functools

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.readers.archives import find
from research.data.readers.fasta import read_fasta
from research.data.readers.rows import Row, Rows, chain
from research.data.sequence.uci import FRACTIONS
from research.data.splitting import by_class

FOLDER = 'gene_sequences'
FILES = {'promoter': 'Arabidopsis_tata.fa.gz', 'other': 'Arabidopsis_non_prom.fa.gz'}


def open(folder: str = '', split_seed: int = 0, examples: int = 0) -> DataSet:
    """Opens the set; a row is {'sequence', 'name', 'label'}.

    Args:
      folder: of the two FASTA files.
      split_seed: another one gives other splits.
      examples: train on this many rows, evenly spread; 0: all.
    """

    def read() -> Rows:
        place = folder_of(FOLDER, folder)
        entries = {label: find(f'{place}/{file}', 'config.data.folder')[0] for label, file in FILES.items()}
        return chain([read_fasta(entry, functools.partial(with_label, label)) for label, entry in entries.items()])

    source = by_class(read, FRACTIONS, split_seed, examples)
    return DataSet(source, 'Arabidopsis, TATA promoters and others: 251 bases', fields=('sequence', 'label'))


def with_label(label: str, row: Row, where: str) -> Row:
    """Returns a row with its label."""
    del where
    return {**row, 'label': label}
