"""SST-2, the Stanford Sentiment Treebank with two classes, whole sentences: 6,920, 872 and 1,821.

Source: Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank", as in Kim
2014. Licence: unclear. Splits: the official ones, without neutral sentences.
Oddities: lower-cased and tokenised; without a header line. Not GLUE's SST-2, which trains on 67,000 phrases.
"""

import functools

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.archives import find
from research.data.readers.rows import Broken, Row, Rows, change, parts_by_hash
from research.data.readers.tables import read_delimited
from research.data.source import Source, github_files
from research.errors import Rate

SOURCE = Source(
    'sst2',
    'unclear: none is stated in the repository',
    'https://github.com/clairett/pytorch-sentiment-classification',
    github_files(
        'clairett/pytorch-sentiment-classification', '457ffd83de90a9d6d472d8ffc31bbffe40a8b236',
        ('data/SST2/train.tsv', 720_259, 'ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920'),
        ('data/SST2/dev.tsv', 92_057, 'eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359'),
        ('data/SST2/test.tsv', 188_749, '831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7'),
    ),
)  # fmt: skip
FILES = {'train': 'train.tsv', 'validation': 'dev.tsv', 'test': 'test.tsv'}
CLASSES = {'0': 'negative', '1': 'positive'}


def open(folder: str = '', validation_share: Rate = 0.0) -> DataSet:
    """Opens the set; a row is {'text', 'label': 'negative' or 'positive'}.

    Args:
      folder: of train.tsv, dev.tsv and test.tsv.
      validation_share: share of training rows to use for validation, by a hash of the text; 0 for the official split.
    """
    @functools.cache
    def read(split: str) -> Rows:
        entry = find(located(folder_of(SOURCE, folder), FILES[split]), 'config.data.folder')[0]
        rows = read_delimited(entry, lambda row, where: row, '\t', False, ('text', 'label'))
        return change(rows, with_class_name, keeps_label=False)

    @functools.cache
    def source(split: str) -> Rows:
        if split == 'test' or not validation_share:
            return read(split)
        return parts_by_hash(read('train'), {'validation': validation_share}, ('text',))[split]

    return DataSet(source, 'one sentence of a film review', fields=('text', 'label'), class_names=(*CLASSES.values(),))


def with_class_name(row: Row, where: str) -> Row:
    """Replaces the label '0' or '1' by the class name."""
    if row['label'] not in CLASSES:
        raise Broken(f'{where}: the label is {row["label"]!r:.20}, not 0 or 1')
    return {**row, 'label': CLASSES[row['label']]}
