"""Tones with noise: sounds that are always available, for tests and first tries.

Source: generated from a seed. Licence: that of the project. Splits: of each six sounds of a class, one is for testing
and one for validation.
"""

import functools
from typing import Annotated

import numpy as np
from jaxtyping import Float

from research.data.dataset import DataSet
from research.data.readers.rows import Rows
from research.errors import Count, Range, choose

KINDS = ('falling', 'high', 'low', 'rising')
RATE = 8000  # Hz
SPLIT_PERIOD = 6  # of this many rows of a class, one is for testing and one for validation


def tone(name: str, seed: int, number: int) -> Float[np.ndarray, 'samples']:
    """A tone of 0.15 to 0.3 s in [-1, 1] with white noise: a pure function of its arguments.

    Args:
      name: of `KINDS`: 'low' is 300 to 500 Hz, 'high' 1500 to 2500 Hz; 'rising' and 'falling' sweep between the two.
      seed: of the set.
      number: of the sound.
    """
    draw = np.random.default_rng((seed, number))
    count = int(draw.integers(round(0.15 * RATE), round(0.3 * RATE)))
    low, high = draw.uniform(300, 500), draw.uniform(1500, 2500)
    first, last = {'low': (low, low), 'high': (high, high), 'rising': (low, high), 'falling': (high, low)}[name]
    phase = 2 * np.pi * np.cumsum(np.geomspace(first, last, count)) / RATE
    loud = 0.5 * np.sin(np.linspace(0, np.pi, count))
    return np.float32(loud * np.sin(phase) + 0.02 * draw.normal(size=count)).clip(-1, 1)


def open(examples: Annotated[int, Range(SPLIT_PERIOD * len(KINDS))] = 96, seed: Count = 0) -> DataSet:
    """Opens the set; a row is {'audio': float32 [samples], 'rate', 'label': of `KINDS`}, equally many of each class.

    Args:
      examples: rows of all splits together, 24 or more.
      seed: of the sounds.
    """
    remainders = {'train': range(2, SPLIT_PERIOD), 'validation': (1,), 'test': (0,)}

    @functools.cache
    def source(split: str) -> Rows:
        chosen = choose(split, remainders, 'split')
        numbers = [number for number in range(examples) if number // len(KINDS) % SPLIT_PERIOD in chosen]

        def kind(row: int) -> str:
            return KINDS[numbers[row] % len(KINDS)]

        def get(row: int) -> dict:
            return {'audio': tone(kind(row), seed, numbers[row]), 'rate': RATE, 'label': kind(row)}

        return Rows(len(numbers), get, lambda row: f'tone {numbers[row]}', label=kind)

    about = 'tones with noise, generated from a seed'
    return DataSet(source, about, fields=('audio', 'rate', 'label'), class_names=KINDS)
