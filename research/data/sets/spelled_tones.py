"""Words spelled by tones: utterances that are always available, for tests and first tries.

Source: generated from a seed. Licence: that of the project. Splits: of each six utterances, one is for testing and one
for validation.
"""

import functools
from typing import Annotated

import numpy as np
from jaxtyping import Float

from research.data.dataset import DataSet
from research.data.readers.rows import Rows
from research.errors import Count, Range, choose

WORDS = ('ab', 'ba', 'cab', 'add', 'dad')
PITCH = {'a': 400.0, 'b': 700.0, 'c': 1200.0, 'd': 2000.0, ' ': 0.0}  # Hz; silence between words
RATE = 8000  # Hz
FEATURES = 13  # values per frame, if features are asked for
SPLIT_PERIOD = 6  # of this many rows, one is for testing and one for validation


def text_of(seed: int, number: int) -> str:
    """One to three words: a pure function of its arguments."""
    draw = np.random.default_rng((seed, number))
    return ' '.join(draw.choice(WORDS, size=int(draw.integers(1, 4))))


def tones(text: str, seed: int, number: int) -> Float[np.ndarray, 'samples']:
    """The tones of a text in [-1, 1], 0.08 to 0.14 s each, with white noise."""
    draw = np.random.default_rng((seed, number, 1))
    parts = []
    for letter in text:
        count = int(draw.integers(round(0.08 * RATE), round(0.14 * RATE)))
        loud = 0.5 * np.sin(np.linspace(0, np.pi, count)) * (PITCH[letter] > 0)
        parts.append(loud * np.sin(2 * np.pi * PITCH[letter] * np.arange(count) / RATE))
    sound = np.concatenate(parts)
    return (sound + 0.02 * draw.normal(size=len(sound))).clip(-1, 1).astype(np.float32)


def frames(text: str, seed: int, number: int) -> Float[np.ndarray, 'frames features']:
    """Features of a text, 8 to 14 frames for each letter: a random direction for each letter, with noise."""
    draw = np.random.default_rng((seed, number, 1))
    directions = np.random.default_rng(0).normal(size=(len(PITCH), FEATURES))
    counts = draw.integers(8, 15, size=len(text))
    content = np.repeat(directions[[list(PITCH).index(letter) for letter in text]], counts, axis=0)
    return (content + 0.3 * draw.normal(size=content.shape)).astype(np.float32)


def open(
    examples: Annotated[int, Range(4 * SPLIT_PERIOD)] = 96, seed: Count = 0, features: bool = False
) -> DataSet:
    """Opens the set; a row is {'audio': float32 [samples], 'rate', 'text'}.

    Args:
      examples: rows of all splits together, 24 or more.
      seed: of the utterances.
      features: rows are {'features': float32 [frames, 13], 'text'} instead.
    """
    remainders = {'train': range(2, SPLIT_PERIOD), 'validation': (1,), 'test': (0,)}

    @functools.cache
    def source(split: str) -> Rows:
        chosen = choose(split, remainders, 'split')
        numbers = [number for number in range(examples) if number % SPLIT_PERIOD in chosen]

        def get(row: int) -> dict:
            text = text_of(seed, numbers[row])
            if features:
                return {'features': frames(text, seed, numbers[row]), 'text': text}
            return {'audio': tones(text, seed, numbers[row]), 'rate': RATE, 'text': text}

        return Rows(len(numbers), get, lambda row: f'utterance {numbers[row]}')

    fields = ('features', 'text') if features else ('audio', 'rate', 'text')
    return DataSet(source, 'words spelled by tones, generated from a seed', fields=fields)
