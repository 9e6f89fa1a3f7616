"""TREC: questions by the type of their answer, 5,452 and 500.

Source: X. Li and D. Roth 2002, "Learning Question Classifiers", COLING. Licence: unclear. Splits: the official test;
a tenth of the training questions is for validation, by a hash of the question that keeps copies together.
Oddities: the files are Latin-1.
"""

import functools
from typing import Literal

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.archives import find, read_bytes
from research.data.readers.rows import Broken, Row, Rows, in_memory, parts_by_hash
from research.data.source import Source, github_files

SOURCE = Source(
    'trec_questions',
    'unclear: none is stated for the data',
    'https://github.com/harvardnlp/sent-conv-torch',
    github_files(
        'harvardnlp/sent-conv-torch', 'd61ded09c99c0199d8c5bca946cd65864de2b296',
        ('data/raw/TREC.train', 335_858, '9e4c8bdcaffb96ed61041bd64b564183d52793a8e91d84fc3a8646885f466ec3'),
        ('data/raw/TREC.test', 23_354, '033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e'),
    ),
)  # fmt: skip
FILES = {'train': 'TREC.train', 'validation': 'TREC.train', 'test': 'TREC.test'}


def open(folder: str = '', labels: Literal['coarse', 'fine'] = 'coarse') -> DataSet:
    """Opens the set; a row is {'text', 'label'}.

    Args:
      folder: of TREC.train and TREC.test.
      labels: 6 'coarse' classes ('HUM') or 50 'fine' ones ('HUM:ind').
    """

    @functools.cache
    def parts(file: str) -> dict[str, Rows]:
        entry = find(located(folder_of(SOURCE, folder), file), 'config.data.folder')[0]
        lines = read_bytes(entry).decode('latin-1').splitlines()  # one byte is not UTF-8
        rows = [question(labels, line, f'{entry.name}, line {number}') for number, line in enumerate(lines, 1)]
        rows = in_memory(rows, entry.name)
        return {'test': rows} if file == FILES['test'] else parts_by_hash(rows, {'validation': 0.1}, ('text',))

    return DataSet(lambda split: parts(FILES[split])[split], 'one question in English', fields=('text', 'label'))


def question(labels: str, line: str, where: str) -> Row:
    """Parses 'COARSE:fine What is ... ?' as a row; raises `Broken` for another form."""
    label, _, text = line.strip().partition(' ')
    coarse, colon, _ = label.partition(':')
    if not (coarse and colon and text.strip()):
        raise Broken(f"{where}: expected 'CLASS:kind question', got {line!r:.60}")
    return {'text': text.strip(), 'label': coarse if labels == 'coarse' else label}
