"""Multi30k, task 1: captions of photographs in English, German and French, 29,000, 1,014 and 1,000 sentences.

Source: D. Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions", github.com/multi30k/dataset.
Licence: non-commercial research and education only. Splits: the official ones; the test is test_2016_flickr.
Oddities: raw text; a few lines have double or trailing blanks.
"""

import functools
from typing import Literal

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.readers.archives import find
from research.data.readers.rows import Rows, join
from research.data.readers.text import read_lines
from research.errors import UserError

FOLDER = 'multi30k_en_de_fr'
FILES = {'train': 'train', 'validation': 'val', 'test': 'test_2016_flickr'}
Language = Literal['en', 'de', 'fr']


def open(source: Language = 'en', target: Language = 'de', folder: str = '') -> DataSet:
    """Opens the set; a row is {'source', 'target'}: a sentence in two languages.

    Args:
      source, target: the languages.
      folder: of train.en.gz and the others.

    Raises:
      UserError: where the languages are the same.
    """
    if source == target:
        raise UserError(f'config.data: source and target must be two languages, both are {source!r}')

    @functools.cache
    def read(split: str) -> Rows:
        place = folder_of(FOLDER, folder)
        files = {side: f'{FILES[split]}.{language}.gz' for side, language in (('source', source), ('target', target))}
        return join(
            {
                file: read_lines(find(f'{place}/{file}', 'config.data.folder')[0], side)
                for side, file in files.items()
            }
        )

    return DataSet(read, f'Multi30k, {source} to {target}', fields=('source', 'target'))
