"""Tiny Shakespeare: 1.1 million characters of plays in one file, the corpus of small character models.

Source: A. Karpathy, github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt. The usual rule, nanoGPT's too:
the first 90% of the characters are for training, the rest for validation; there is no test split.
"""

import hashlib
from collections.abc import Callable

from research.data.readers.archives import data_root, find, read_bytes
from research.data.text.corpus import Corpus
from research.errors import UserError

CHARACTERS = 1_115_394


def tiny_shakespeare(folder: str = '') -> Callable[[], Corpus]:
    """Returns the function that reads the corpus, one document a split.

    Args:
      folder: where input.txt lies; '' for $TESSERA_DATA/tiny_shakespeare.
    """

    def corpus() -> Corpus:
        place = folder or f'{data_root()}/tiny_shakespeare'
        text = read_bytes(find((f'{place}/input.txt',), 'config.data.folder')[0]).decode()
        if len(text) != CHARACTERS:
            raise UserError(f'{place}/input.txt has {len(text):,} characters, the corpus has {CHARACTERS:,}')
        border = int(0.9 * len(text))
        documents = {'train': (text[:border],), 'validation': (text[border:],)}
        sizes = {split: len(texts[0].encode()) for split, texts in documents.items()}
        digest = hashlib.sha256(text.encode()).hexdigest()
        return Corpus(documents, {'corpus': 'tiny_shakespeare', 'sha256': digest, 'bytes': sizes})

    return corpus
