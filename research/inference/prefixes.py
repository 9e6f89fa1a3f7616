"""Prompts that were read, kept for requests that begin with the same tokens."""

import collections
import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from research.inference import programs


class Prefixes:
    """The most recently used rows, at most `size`; a row belongs to a prompt, or to the first parts of a long one.

    Long prompts are read in the same parts with and without a row from here, so that it changes no bit of an answer.
    """

    def __init__(self, size: int):
        self.size, self.rows = size, collections.OrderedDict()

    def find(self, prompts: Mapping[str, np.ndarray]) -> tuple[Any, int]:
        """The row with the most tokens of a prompt, and their number; (None, 0) without one."""
        length = int(prompts['length'][0])
        for count in (length, *range((length - 1) // programs.PART * programs.PART, 0, -programs.PART)):
            if (key := key_of(prompts, count)) in self.rows:
                self.rows.move_to_end(key)
                return self.rows[key], count
        return None, 0

    def keep(self, prompts: Mapping[str, np.ndarray], count: int, row: Any) -> None:
        """Keeps the row of the first `count` tokens, and forgets the one that was used longest ago."""
        if self.size:
            self.rows[key_of(prompts, count)] = row
            self.rows.move_to_end(key_of(prompts, count))
        while len(self.rows) > self.size:
            self.rows.popitem(last=False)


def key_of(prompts: Mapping[str, np.ndarray], count: int) -> bytes:
    """A hash of the first `count` tokens, whether these are the whole prompt, and all other arrays."""
    whole = count == int(prompts['length'][0])
    digest = hashlib.blake2b(b'whole' if whole else b'part', digest_size=16)
    for part in parts_of(prompts, count):
        digest.update(part)
    return digest.digest()


def parts_of(prompts: Mapping[str, np.ndarray], count: int) -> Iterator[bytes]:
    for name in sorted(prompts):
        value = np.asarray(prompts[name], np.int32)
        if name == 'tokens':
            yield value[0, :count].tobytes()
        elif name != 'length':
            yield value.tobytes()
