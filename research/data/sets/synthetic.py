"""Made-up text and a tokenizer of any size, both instant: a language model's sizes without reading a corpus.

Source: made here from a fixed seed; its words mean nothing. Licence: that of the project. Splits: one text each.
It is for planning, for tests and for measuring speed: its tokenizer is not learned but counted out, so that one of
128,256 tokens takes under a second.
"""

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from research.data.dataset import DataSet
from research.data.readers.rows import SPLITS, Rows, in_memory
from research.data.text.corpus import END
from research.errors import UserError

SYLLABLES = ('ba', 'do', 'ki', 'lu', 'me', 'no', 'ra', 'si', 'ta', 've')


def open(kilobytes: int = 64) -> DataSet:
    """Opens the set; a row is {'text'}, and each split is one, the same on every machine.

    Args:
      kilobytes: text in each split; a row needs about two bytes a token.

    Raises:
      UserError: for a size that is not above zero.
    """
    if kilobytes < 1:
        raise UserError(f'config.data.kilobytes must be above zero, got {kilobytes}')

    @functools.cache
    def source(split: str) -> Rows:
        return in_memory([{'text': words(SPLITS.index(split), kilobytes * 1000)}], f'synthetic, {split}')

    return DataSet(source, f'synthetic words, {kilobytes} kB a split', fields=('text',), tokenizer=counted_tokenizer)


def words(seed: int, size: int) -> str:
    """Returns at least `size` characters of words of two or three syllables; the early syllables are commoner."""
    generator = np.random.default_rng(seed)
    shares = 1 / np.arange(2, len(SYLLABLES) + 2)
    count = size // 4 + 1  # a word has five to seven characters with its space
    chosen = generator.choice(len(SYLLABLES), (count, 3), p=shares / shares.sum())
    lengths = generator.integers(2, 4, count)
    return ' '.join(
        ''.join(SYLLABLES[each] for each in row[:length]) for row, length in zip(chosen, lengths, strict=True)
    )


def counted_tokenizer(vocabulary: int) -> Tokenizer:
    """Returns a byte-level tokenizer of exactly `vocabulary` tokens that no text was read for.

    The end token, 256 bytes, then pairs of bytes and triples in a fixed order, letters first. Any text is
    encoded without loss.

    Raises:
      UserError: where the vocabulary cannot be that small.
    """
    if vocabulary < 257:
        raise UserError(f'config.task.vocabulary={vocabulary}: the least is 257: 256 bytes and one end')
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda each: (not each.islower(), each))
    merges = list(itertools.islice(pairs(alphabet), vocabulary - 257))
    tokens = [END, *alphabet, *(left + right for left, right in merges)]
    vocabulary_of = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary_of, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    return tokenizer


def pairs(alphabet: list[str]) -> Iterator[tuple[str, str]]:
    """Yields (left, right) for every token of two characters, then for every one of three."""
    yield from itertools.product(alphabet, alphabet)
    for left, middle, right in itertools.product(alphabet, alphabet, alphabet):
        yield left + middle, right
