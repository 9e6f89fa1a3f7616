"""Hides tokens for a model that learns to fill them in: BERT's masks and T5's spans, in NumPy."""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer


class Masked(NamedTuple):
    """Model input, masked positions and original tokens."""

    tokens: Integer[np.ndarray, 'length']
    positions: Integer[np.ndarray, 'count']
    targets: Integer[np.ndarray, 'count']


def generator_of(tokens: Integer[np.ndarray, 'length']) -> np.random.Generator:
    """A generator seeded by the tokens, so every evaluation of a row has the same masks."""
    return np.random.default_rng(zlib.crc32(np.ascontiguousarray(tokens, np.int32).tobytes()))


def mask_tokens(
    tokens: Integer[np.ndarray, 'length'],
    groups: Integer[np.ndarray, 'length'],
    count: int,
    mask: int,
    replacements: Integer[np.ndarray, 'choices'],
    shares: tuple[float, float],
    rng: np.random.Generator,
) -> Masked:
    """Hides about `count` of the tokens (Devlin et al. 2019, arXiv:1810.04805, section 3.1).

    Of the chosen tokens, one share becomes the mask, another a random token, and the rest stays. The model predicts all
    of them without knowing which is which.

    Args:
      tokens: one row.
      groups: the word of each token; a word is chosen completely or not at all. Distinct numbers choose single tokens;
        -1 is never chosen.
      count: number of tokens to choose; fewer if the next word would be too long, or no word is left.
      mask: the id of the mask.
      replacements: ids from which random tokens are drawn.
      shares: (masked, random), average shares of the chosen tokens.
      rng: random generator.
    """
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = [name for name in rng.permutation(len(names)).tolist() if names[name] >= 0]
    left, chosen = count, []
    for name in order:
        if sizes[name] <= left:
            chosen.append(name)
            left -= int(sizes[name])
        if not left:
            break
    positions = np.flatnonzero(np.isin(inverse, chosen))
    hidden = np.array(tokens, np.int32)
    fate, drawn = rng.random(len(positions)), rng.choice(replacements, len(positions))
    masked, shuffled = shares
    fates = [fate < masked, fate < masked + shuffled]
    hidden[positions] = np.select(fates, [np.full_like(drawn, mask), drawn], hidden[positions])
    return Masked(hidden, positions.astype(np.int32), np.asarray(tokens, np.int32)[positions])


def span_sizes(length: int, density: float, mean: float) -> tuple[int, int]:
    """(hidden tokens, spans) of a row of `length` tokens, at least one each.

    Raffel et al. 2020 (arXiv:1910.10683), section 3.3.4: hides a share `density` in spans of `mean` tokens.
    """
    hidden = min(max(round(length * density), 1), length - 1)
    return hidden, min(max(round(hidden / mean), 1), length - hidden)


def spans(length: int, hidden: int, count: int, rng: np.random.Generator) -> Bool[np.ndarray, 'length']:
    """Draws a mask with `hidden` tokens in `count` spans, each preceded by visible tokens.

    The lengths of hidden and visible parts are uniform among all compositions.
    """
    parts = np.stack([composition(total, count, rng) for total in (length - hidden, hidden)], axis=1)
    return np.repeat(np.tile([False, True], count), parts.reshape(-1))


def composition(total: int, parts: int, rng: np.random.Generator) -> Integer[np.ndarray, 'parts']:
    """Draws positive integers that sum to `total`, uniform among all compositions."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.array([], int)
    return np.diff(np.concatenate([[0], cuts, [total]]).astype(int))


def corrupt_spans(
    tokens: Integer[np.ndarray, 'length'],
    hidden: Bool[np.ndarray, 'length'],
    sentinels: Integer[np.ndarray, 'most'],
    end: int,
) -> tuple[Integer[np.ndarray, 'source'], Integer[np.ndarray, 'target']]:
    """(source, target): the text with sentinels for spans, and the sentinels each followed by its span.

    Both end with `end`; in the target, a final sentinel precedes it (Raffel et al. 2020, figure 2).
    """
    tokens = np.asarray(tokens, np.int32)
    first = hidden & ~np.concatenate([[False], hidden[:-1]])
    number = np.cumsum(first)
    marked = np.where(first, sentinels[number - 1], tokens)  # `first` is false before the first span
    source = np.append(marked[~hidden | first], end)
    starts = np.flatnonzero(first[hidden])
    target = np.insert(tokens[hidden], starts, sentinels[: len(starts)])
    return source.astype(np.int32), np.append(target, [sentinels[len(starts)], end]).astype(np.int32)


def fill_spans(source: list[int], target: list[int], sentinels: list[int], end: int) -> list[int]:
    """Reconstructs the text of a source and a (generated) target, without sentinels and end.

    Sentinels missing from the target become empty.
    """
    spans_of: dict[int, list[int]] = {}
    current: list[int] = []
    known = set(sentinels)
    for token in target:
        if token == end:
            break
        if token in known:
            current = spans_of.setdefault(token, [])
        else:
            current.append(token)
    text: list[int] = []
    for token in source:
        if token == end:
            break
        text += spans_of.get(token, []) if token in known else [token]
    return text
