"""Tiny Shakespeare: 1.1 million characters of plays in one file, the usual corpus of small character models.

Source: A. Karpathy, github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt. Licence: public domain. Splits: as
in nanoGPT, the first 90% of the characters for training, the rest for validation; no test split.
"""

import functools

from research.data.dataset import DataSet
from research.data.fetch import folder_of, located
from research.data.readers.archives import find, read_bytes
from research.data.readers.rows import Rows, in_memory
from research.data.source import Source, github_files
from research.errors import UserError

SOURCE = Source(
    'tiny_shakespeare',
    'public domain',
    'https://github.com/karpathy/char-rnn',
    github_files(
        'karpathy/char-rnn', '6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e',
        ('data/tinyshakespeare/input.txt', 1_115_394,
         '86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed'),
    ),
)  # fmt: skip
CHARACTERS = 1_115_394


def open(folder: str = '') -> DataSet:
    """Opens the set; each split is one row {'text'}.

    Args:
      folder: of input.txt.
    """

    @functools.cache
    def source(split: str) -> Rows:
        root = folder_of(SOURCE, folder)
        text = read_bytes(find((located(root, 'input.txt'),), 'config.data.folder')[0]).decode()
        if len(text) != CHARACTERS:
            raise UserError(f'{root}/input.txt has {len(text):,} characters, the corpus has {CHARACTERS:,}')
        border = int(0.9 * len(text))
        part = {'train': text[:border], 'validation': text[border:]}[split]
        return in_memory([{'text': part}], f'tiny_shakespeare, {split}')

    return DataSet(source, 'plays of Shakespeare', ('train', 'validation'), ('text',))
