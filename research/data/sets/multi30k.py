"""Multi30k, task 1: captions of photographs in English, German and French, 29,000, 1,014 and 1,000 sentences.

Source: D. Elliott et al. 2016, "Multi30K: Multilingual English-German Image Descriptions", github.com/multi30k/dataset.
Licence: non-commercial research and education only. Splits: the official ones; the test is test_2016_flickr.
Oddities: raw text; a few lines have double or trailing spaces.
"""

import functools
from typing import Literal

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.readers.archives import find
from research.data.readers.rows import Rows, join
from research.data.readers.text import read_lines
from research.data.source import Source, github_files
from research.errors import UserError

SOURCE = Source(
    'multi30k_en_de_fr',
    'non-commercial research and education only',
    'https://github.com/multi30k/dataset',
    github_files(
        'multi30k/dataset', 'a3d2e0d26b56f3846f66a952536ffed4e401d05a',
        ('data/task1/raw/train.en.gz', 568_929, 'd79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f'),
        ('data/task1/raw/train.de.gz', 637_044, '726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6'),
        ('data/task1/raw/train.fr.gz', 604_242, '622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c'),
        ('data/task1/raw/val.en.gz', 21_650, '14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28'),
        ('data/task1/raw/val.de.gz', 24_681, 'f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a'),
        ('data/task1/raw/val.fr.gz', 23_001, 'ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9'),
        ('data/task1/raw/test_2016_flickr.en.gz', 21_077,
         '611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9'),
        ('data/task1/raw/test_2016_flickr.de.gz', 22_890,
         '9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8'),
        ('data/task1/raw/test_2016_flickr.fr.gz', 22_310,
         '6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90'),
    ),
)  # fmt: skip
FILES = {'train': 'train', 'validation': 'val', 'test': 'test_2016_flickr'}
Language = Literal['en', 'de', 'fr']


def open(source: Language = 'en', target: Language = 'de', folder: str = '') -> DataSet:
    """Opens the set; a row is {'source', 'target'}: a sentence in two languages.

    Args:
      source, target: the languages.
      folder: of train.en.gz and the others.

    Raises:
      UserError: if the languages are equal.
    """
    if source == target:
        raise UserError(f'config.data: source and target must be two languages, both are {source!r}')

    @functools.cache
    def read(split: str) -> Rows:
        root = folder_of(SOURCE, folder)
        files = {side: f'{FILES[split]}.{language}.gz' for side, language in (('source', source), ('target', target))}
        return join(
            {
                file: read_lines(find(f'{root}/{file}', 'config.data.folder')[0], side)
                for side, file in files.items()
            }
        )

    return DataSet(read, f'Multi30k, {source} to {target}', fields=('source', 'target'))
