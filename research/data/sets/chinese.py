"""160 Chinese sentences on four topics with their English translations, written for this project.

Source: `samples/chinese.tsv`, in this repository. Licence: that of the project. Splits: 20% validation and 20% test by
a hash of the sentence.
"""

import pathlib
from typing import Annotated

from research.data.dataset import DataSet
from research.data.readers.archives import find
from research.data.readers.rows import Rows, select
from research.data.readers.tables import read_delimited
from research.data.splitting import by_hash
from research.errors import Range

TOPICS = ('天气', '饮食', '交通', '学习')  # weather, food, transport, study
FRACTIONS = {'test': 0.2, 'validation': 0.2}


def open(topics: Annotated[int, Range(2, len(TOPICS))] = 4) -> DataSet:
    """Opens the set; a row is {'text', 'label', 'english'}.

    Args:
      topics: 2 to 4; the first of weather, food, transport and study.
    """
    def read() -> Rows:
        file = pathlib.Path(__file__).parent / 'samples' / 'chinese.tsv'
        rows = read_delimited(find(str(file), 'config.data')[0], lambda row, where: row, '\t', False)
        return select(rows, [number for number, row in enumerate(rows) if row['label'] in TOPICS[:topics]])

    source = by_hash(read, FRACTIONS, ('text',))
    return DataSet(source, f'Chinese sentences on {topics} topics', fields=('text', 'label', 'english'))
