"""Tones with noise: sounds that are always there, for tests and first tries.

Source: made here from a seed. Licence: that of the project. Splits: of six sounds of a class, one is for the test and
one for validation.
"""

import functools

import numpy as np
from jaxtyping import Float

from research.data.dataset import DataSet
from research.data.readers.rows import Rows
from research.errors import UserError, choose

KINDS = ('falling', 'high', 'low', 'rising')
RATE = 8000  # samples a second
EVERY = 6  # of this many rows of a class, one is for the test and one for validation


def tone(kind: str, seed: int, number: int) -> Float[np.ndarray, 'samples']:
    """Returns a tone of 0.15 to 0.3 s in [-1, 1], with white noise: a function of its arguments alone.

    Args:
      kind: of `KINDS`: 'low' is 300 to 500 Hz and 'high' 1500 to 2500, 'rising' and 'falling' run between the two.
      seed: another one gives other sounds.
      number: likewise.
    """
    draw = np.random.default_rng((seed, number))
    count = int(draw.integers(round(0.15 * RATE), round(0.3 * RATE)))
    low, high = draw.uniform(300, 500), draw.uniform(1500, 2500)
    first, last = {'low': (low, low), 'high': (high, high), 'rising': (low, high), 'falling': (high, low)}[kind]
    phase = 2 * np.pi * np.cumsum(np.geomspace(first, last, count)) / RATE
    loud = 0.5 * np.sin(np.linspace(0, np.pi, count))
    return np.float32(loud * np.sin(phase) + 0.02 * draw.normal(size=count)).clip(-1, 1)


def open(examples: int = 96, seed: int = 0) -> DataSet:
    """Opens the set; a row is {'audio': float32 [samples], 'rate', 'label': of `KINDS`}, as many of each class.

    Args:
      examples: in all splits together, 24 or more.
      seed: another one gives other sounds.

    Raises:
      UserError: for too few.
    """
    if examples < EVERY * len(KINDS):
        raise UserError(f'config.data.examples must be {EVERY * len(KINDS)} or more, got {examples}')
    places = {'train': range(2, EVERY), 'validation': (1,), 'test': (0,)}

    @functools.cache
    def source(split: str) -> Rows:
        rest = choose(split, places, 'split')
        numbers = [number for number in range(examples) if number // len(KINDS) % EVERY in rest]

        def kind(row: int) -> str:
            return KINDS[numbers[row] % len(KINDS)]

        def get(row: int) -> dict:
            return {'audio': tone(kind(row), seed, numbers[row]), 'rate': RATE, 'label': kind(row)}

        return Rows(len(numbers), get, lambda row: f'tone {numbers[row]}', label=kind)

    about = 'tones with noise, made from a seed'
    return DataSet(source, about, fields=('audio', 'rate', 'label'), class_names=KINDS)
