"""SQuAD 1.1: questions on articles of Wikipedia, answered by a part of a paragraph.

Source: P. Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text", arXiv:1606.05250.
Licence: CC BY-SA 4.0. Splits: of 'dev', the 48 articles of the development file by their order, 35 for training (7,947
questions), 3 for validation (635) and 10 for the test (1,988); results are not comparable with published ones. 'full':
the official files, with the last 20 articles of the training file for validation, and the development file as the test.
Oddities: 1 to 6 answers per question in the development file, one in the training file; positions count code points.
"""

import functools
from typing import Literal

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.archives import find
from research.data.readers.rows import Row, Rows, select
from research.data.readers.squad import read_squad
from research.data.source import Source, github_files

COMMIT = 'eee5fdbf62f8613a7812b03419e6b29617b74fd1'
SOURCE = Source(
    'squad_dev',
    'CC BY-SA 4.0',
    'https://github.com/rajpurkar/SQuAD-explorer',
    github_files(
        'rajpurkar/SQuAD-explorer', COMMIT,
        ('dataset/dev-v1.1.json', 4_854_279, '95aa6a52d5d6a735563366753ca50492a658031da74f301ac5238b03966972c9'),
    ),
    about='1 to 6 answers to a question; answer_start counts code points',
)  # fmt: skip
TRAIN_SOURCE = Source(
    'squad_train',
    'CC BY-SA 4.0',
    'https://github.com/rajpurkar/SQuAD-explorer',
    github_files(  # the hash is that which tensorflow-datasets records for this file
        'rajpurkar/SQuAD-explorer', COMMIT,
        ('dataset/train-v1.1.json', 30_288_272, '3527663986b8295af4f7fcdff1ba1ff3f72d07d61a20f487cb238a6ef92fd955'),
    ),
)  # fmt: skip
DEV_ARTICLES = {'train': slice(0, 35), 'validation': slice(35, 38), 'test': slice(38, None)}
TRAIN_ARTICLES = {'train': slice(None, -20), 'validation': slice(-20, None)}


def open(part: Literal['dev', 'full'] = 'dev', folder: str = '') -> DataSet:
    """Opens the set; a row is {'question', 'context', 'answers', 'id', 'title'}.

    Args:
      part: 'dev' splits the development file; 'full' also reads the training file, six times as large.
      folder: of dev-v1.1.json and, for 'full', train-v1.1.json.
    """

    @functools.cache
    def read(split: str) -> Rows:
        if part == 'dev':
            return by_articles(read_file(SOURCE, folder, 'dev-v1.1.json'), DEV_ARTICLES[split])
        if split == 'test':
            return read_file(SOURCE, folder, 'dev-v1.1.json')
        return by_articles(read_file(TRAIN_SOURCE, folder, 'train-v1.1.json'), TRAIN_ARTICLES[split])

    return DataSet(read, 'SQuAD 1.1', fields=('question', 'context', 'answers'))


@functools.cache
def read_file(source: Source, folder: str, name: str) -> Rows:
    """The rows of one file, in order."""
    entry = find(located(folder_of(source, folder), name), 'config.data.folder')[0]
    return read_squad(entry, unchanged)


def unchanged(row: Row, where: str) -> Row:
    """The row itself."""
    del where
    return row


def by_articles(rows: Rows, chosen: slice) -> Rows:
    """The questions of a range of articles."""
    titles = [rows[number]['title'] for number in range(len(rows))]
    kept = set(list(dict.fromkeys(titles))[chosen])
    return select(rows, [number for number, title in enumerate(titles) if title in kept])
