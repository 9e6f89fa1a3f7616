"""Arabidopsis: 4,376 windows of 251 bases, TATA promoters and other regions.

Source: Umarov and Solovyev 2017, PLOS ONE 12(2): e0171410. Licence: unclear.
Splits: none official; 10% validation and 20% test of each class by a hash of the sequence.
Oddities: base composition alone separates the classes in part, because they come from different regions.
"""

import functools

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.archives import find
from research.data.readers.fasta import read_fasta
from research.data.readers.rows import Row, Rows, chain
from research.data.sequence.uci import FRACTIONS
from research.data.source import Source, github_files
from research.data.splitting import by_class
from research.errors import Count

SOURCE = Source(
    'gene_sequences',
    'unclear: none is stated in the repository',
    'https://github.com/solovictor/CNNPromoterData',
    github_files(
        'solovictor/CNNPromoterData', 'b4d2949e9bc5206f3049b35a488b036125ccc653',
        ('Arabidopsis_tata.fa', 479_040, '2beaa31c2797e7f8d193b6015b7239a89509341f59dde57d904d8664e492901b'),
        ('Arabidopsis_non_prom.fa', 993_473, '1ab75553cdbf99d54e56928a56b3f35eb14a5f3bbb31bba7c1102b406a615c90'),
    ),
)  # fmt: skip
FILES = {'promoter': 'Arabidopsis_tata.fa', 'other': 'Arabidopsis_non_prom.fa'}


def open(folder: str = '', split_seed: Count = 0, examples: Count = 0) -> DataSet:
    """Opens the set; a row is {'sequence', 'name', 'label'}.

    Args:
      folder: of the two FASTA files.
      split_seed: seed of the split.
      examples: number of training rows to use, evenly spaced; 0 for all.
    """

    def read() -> Rows:
        root = folder_of(SOURCE, folder)
        entries = {label: find(located(root, file), 'config.data.folder')[0] for label, file in FILES.items()}
        return chain([read_fasta(entry, functools.partial(with_label, label)) for label, entry in entries.items()])

    source = by_class(read, FRACTIONS, split_seed, examples)
    return DataSet(source, 'Arabidopsis, TATA promoters and others: 251 bases', fields=('sequence', 'label'))


def with_label(label: str, row: Row, where: str) -> Row:
    del where
    return {**row, 'label': label}
