"""Generated text and a tokenizer of any size, both instant: a language model without reading a corpus.

Source: generated from a fixed seed; its words are meaningless. Licence: that of the project. Splits: one text each.
It serves planning, tests and speed measurements. Its tokenizer is enumerated instead of trained, so 128,256 tokens take
less than a second.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from research.data.dataset import DataSet
from research.data.readers.rows import SPLITS, Rows, in_memory
from research.data.text.corpus import END
from research.errors import PositiveInt, UserError

SYLLABLES = ('ba', 'do', 'ki', 'lu', 'me', 'no', 'ra', 'si', 'ta', 've')


def open(kilobytes: PositiveInt = 64) -> DataSet:
    """Opens the set; each split is one row {'text'}, the same on every machine.

    Args:
      kilobytes: size of the text in each split; a row needs about two bytes per token.
    """
    @functools.cache
    def source(split: str) -> Rows:
        return in_memory([{'text': words(SPLITS.index(split), kilobytes * 1000)}], f'synthetic, {split}')

    return DataSet(source, f'synthetic words, {kilobytes} kB a split', fields=('text',), tokenizer=counted_tokenizer)


def words(seed: int, size: int) -> str:
    """At least `size` characters of words with two or three syllables; early syllables are more frequent."""
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(2, len(SYLLABLES) + 2)
    count = size // 4 + 1  # a word has five to seven characters with its space
    chosen = generator.choice(len(SYLLABLES), (count, 3), p=shares / shares.sum())
    lengths = generator.integers(2, 4, count)
    return ' '.join(
        ''.join(SYLLABLES[syllable] for syllable in row[:length]) for row, length in zip(chosen, lengths, strict=True)
    )


def counted_tokenizer(vocabulary: int) -> Tokenizer:
    """An enumerated byte-level tokenizer of exactly `vocabulary` tokens.

    It has the end token, 256 bytes, then pairs and triples of bytes in a fixed order, letters first. Any text can be
    encoded without loss.

    Raises:
      UserError: if the vocabulary is too small.
    """
    if vocabulary < 257:
        raise UserError(f'config.task.vocabulary={vocabulary}: the minimum is 257: 256 bytes and the end token')
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda letter: (not letter.islower(), letter))
    merges = list(itertools.islice(pairs(alphabet), vocabulary - 257))
    tokens = [END, *alphabet, *(left + right for left, right in merges)]
    vocabulary_of = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary_of, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def pairs(alphabet: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (left, right) for all two-character tokens, then for all three-character tokens."""
    yield from itertools.product(alphabet, alphabet)
    for left, middle, right in itertools.product(alphabet, alphabet, alphabet):
        yield left + middle, right
