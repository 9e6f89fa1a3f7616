"""Tokens hidden from a model that learns to fill them in: BERT's masks and T5's spans, as NumPy functions."""

import zlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Integer


class Masked(NamedTuple):
    """A text with hidden tokens: what the model reads, where it is asked, and what stood there."""

    tokens: Integer[np.ndarray, 'length']
    positions: Integer[np.ndarray, 'count']
    targets: Integer[np.ndarray, 'count']


def generator_of(tokens: Integer[np.ndarray, 'length']) -> np.random.Generator:
    """Returns a generator that follows from the tokens alone: the same masks in every evaluation of a row."""
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
    """Returns `tokens` with about `count` of them hidden (Devlin et al. 2019, arXiv:1810.04805, section 3.1).

    Of the chosen tokens a share becomes the mask, another a random token, and the rest stays; the model does
    not see which, and predicts all of them.

    Args:
      tokens: one row.
      groups: of each token, the word it belongs to; a word is chosen whole or not at all. Numbers of their own
        choose single tokens; -1 is never chosen.
      count: tokens to choose; fewer only where the next word would be too long, or there are no more.
      mask: the id of the mask.
      replacements: ids from which random tokens are drawn.
      shares: (masked, random), of the chosen tokens on average.
      rng: where chance comes from.
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
    """Returns how many of `length` tokens are hidden, and in how many spans, one of each at least.

    Raffel et al. 2020 (arXiv:1910.10683), section 3.3.4: a share `density` in spans of `mean` tokens.
    """
    hidden = min(max(round(length * density), 1), length - 1)
    return hidden, min(max(round(hidden / mean), 1), length - hidden)


def spans(length: int, hidden: int, count: int, rng: np.random.Generator) -> Bool[np.ndarray, 'length']:
    """Returns which tokens are hidden: `hidden` of them in `count` spans, shown tokens before each one.

    Lengths of hidden and of shown parts are drawn evenly among all with these sums.
    """
    parts = np.stack([composition(total, count, rng) for total in (length - hidden, hidden)], axis=1)
    return np.repeat(np.tile([False, True], count), parts.reshape(-1))


def composition(total: int, parts: int, rng: np.random.Generator) -> Integer[np.ndarray, 'parts']:
    """Returns positive numbers with a sum, each way of writing it as likely as any other."""
    cuts = np.sort(rng.choice(total - 1, parts - 1, replace=False)) + 1 if parts > 1 else np.array([], int)
    return np.diff(np.concatenate([[0], cuts, [total]]).astype(int))


def corrupt_spans(
    tokens: Integer[np.ndarray, 'length'],
    hidden: Bool[np.ndarray, 'length'],
    sentinels: Integer[np.ndarray, 'most'],
    end: int,
) -> tuple[Integer[np.ndarray, 'source'], Integer[np.ndarray, 'target']]:
    """Returns (source, target): spans replaced by sentinels, and the sentinels each followed by its span.

    Both end with `end`; the target has one more sentinel before it, as a closing mark (Raffel et al. 2020,
    figure 2).
    """
    tokens = np.asarray(tokens, np.int32)
    first = hidden & ~np.concatenate([[False], hidden[:-1]])
    number = np.cumsum(first)
    marked = np.where(first, sentinels[number - 1], tokens)  # where no span has begun, `first` is false
    source = np.append(marked[~hidden | first], end)
    starts = np.flatnonzero(first[hidden])
    target = np.insert(tokens[hidden], starts, sentinels[: len(starts)])
    return source.astype(np.int32), np.append(target, [sentinels[len(starts)], end]).astype(np.int32)


def fill_spans(source: list[int], target: list[int], sentinels: list[int], end: int) -> list[int]:
    """Returns the text that a source and a (perhaps generated) target stand for, without sentinels and end.

    A sentinel that the target does not explain stands for nothing.
    """
    found: dict[int, list[int]] = {}
    current: list[int] = []
    known = set(sentinels)
    for token in target:
        if token == end:
            break
        if token in known:
            current = found.setdefault(token, [])
        else:
            current.append(token)
    text: list[int] = []
    for token in source:
        if token == end:
            break
        text += found.get(token, []) if token in known else [token]
    return text
