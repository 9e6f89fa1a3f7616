"""Pairs of texts as rows: a tokenizer per side, and a plan that packs several pairs into a row."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.data.batches import order
from research.data.dataset import DataSet
from research.data.readers.rows import Broken
from research.data.text.corpus import encode_text, load_array, save_array, train_tokenizer
from research.data.text.pair_packing import PackedRows, Ragged, first_fit, flatten, padding_share
from research.errors import UserError, choose

SIDES = ('source', 'target')
END_ID = 0  # of `research.data.text.corpus.END`, the first special token of `train_tokenizer`


class Tokenizers(NamedTuple):
    """The tokenizer of each side, shared if the vocabulary is, and start and end ids."""

    source: Tokenizer
    target: Tokenizer
    start: int = END_ID  # first input of the decoder
    end: int = END_ID  # of every text
    prefix: str = ''  # before every source: the instruction of T5

    def encode_source(self, text: str) -> list[int]:
        return [*encode_text(self.source, self.prefix + text), self.end]

    def encode_target(self, text: str) -> list[int]:
        return [*encode_text(self.target, text), self.end]


def read_pairs(data: DataSet, split: str) -> list[tuple[str, str]]:
    """Reads (source, target) of each row, stripped of white space; raises `Broken` for other values."""
    rows = data.source(split)
    return [pair_of(rows[number], rows.where(number)) for number in range(len(rows))]


def pair_of(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """(source, target) of a row; raises `Broken` if one is not a string."""
    for name in SIDES:
        if not isinstance(row.get(name), str):
            raise Broken(f'{where}: {name!r} is {row.get(name)!r:.40}, not a text')
    return row['source'].strip(), row['target'].strip()


def train_tokenizers(pairs: Sequence[tuple[str, str]], vocabulary: int, shared: bool) -> Tokenizers:
    """Trains the tokenizers on the training pairs: one for both sides, or one for each."""
    sides = [[pair[number] for pair in pairs] for number in range(2)]
    if shared:
        both = train_tokenizer(sides[0] + sides[1], vocabulary)
        return Tokenizers(both, both)
    source, target = (train_tokenizer(texts, vocabulary) for texts in sides)
    return Tokenizers(source, target)


def tokens_of(tokenizers: Tokenizers, pair: Sequence[str]) -> list[list[int]]:
    return [tokenizers.encode_source(pair[0]), tokenizers.encode_target(pair[1])]


def write_pairs(data: DataSet, tokenizers: Tokenizers, length: int, row_length: int, folder: epath.Path) -> None:
    """Plans the packed rows of the training pairs and stores the pairs of all splits.

    Writes <side>.json (tokenizers), <side>.npy and <side>_starts.npy (tokens of the training pairs in the order
    of the plan), rows.npy (the first pair of each row), counts.npy (of each target token), <split>.json
    (pairs of texts) and plan.json (what was left out, padding, source of the texts).

    Raises:
      UserError: if no training pair is left.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept, sizes, plan = plan_pairs(read_pairs(data, 'train'), tokenizers, length)
    rows = first_fit(sizes, row_length)
    arrays = {'rows': np.cumsum([0, *map(len, rows)])}
    planned = [kept[number] for row in rows for number in row]
    vocabulary = tokenizers.target.get_vocab_size()
    dtype = np.uint16 if max(vocabulary, tokenizers.source.get_vocab_size()) <= 2**16 else np.int32
    for number, side in enumerate(SIDES):
        arrays[side], arrays[f'{side}_starts'] = flatten([pair[number] for pair in planned], dtype)
        (folder / f'{side}.json').write_text(getattr(tokenizers, side).to_str())
    arrays['counts'] = np.bincount(arrays['target'], minlength=vocabulary)
    for name, array in arrays.items():
        save_array(folder / f'{name}.npy', array)
    cut, counts = {}, {'train': len(data.source('train'))}
    for split in ('validation', 'test'):
        pairs = read_pairs(data, split)
        counts[split] = len(pairs)
        cut[split] = sum(max(map(len, tokens_of(tokenizers, pair))) > length for pair in pairs)
        (folder / f'{split}.json').write_text(json.dumps(pairs, ensure_ascii=False), encoding='utf-8')
    padding = padding_share(sizes, len(rows), row_length)
    stored = {**plan, 'rows': len(rows), 'padding': padding, 'cut': cut, 'source': data.about, 'pairs': counts}
    (folder / 'plan.json').write_text(json.dumps(stored, indent=2))


def plan_pairs(
    pairs: Sequence[tuple[str, str]], tokenizers: Tokenizers, length: int
) -> tuple[list[list[list[int]]], np.ndarray, dict[str, int]]:
    """Tokens of the training pairs in a random order, their sizes, and counts of those left out.

    Raises:
      UserError: if no pair is left.
    """
    kept, left_out = [], {'empty': 0, 'too_long': 0}
    for number in order(len(pairs), 0, 0):
        tokens = tokens_of(tokenizers, pairs[number])
        if not all(pairs[number]):
            left_out['empty'] += 1
        elif max(map(len, tokens)) > length:
            left_out['too_long'] += 1
        else:
            kept.append(tokens)
    if not kept:
        raise UserError(
            f'of {len(pairs)} training pairs {left_out["empty"]} are empty on a side and {left_out["too_long"]} longer '
            f'than config.task.length={length} tokens: none is left'
        )
    return kept, np.array([[len(text) for text in pair] for pair in kept]), left_out


class PairRows(Sequence):
    """Rows {'source', 'target'} of texts."""

    def __init__(self, pairs: Sequence[Sequence[str]]):
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, number: int) -> dict[str, str]:
        return dict(zip(SIDES, self.pairs[number], strict=True))


def read_rows(folder: epath.Path, split: str) -> Sequence[Mapping[str, Any]]:
    """Reads the rows of a split: packed rows of 'train', pairs of the others."""
    choose(split, dict.fromkeys(('train', 'validation', 'test')), 'split')
    if split != 'train':
        return PairRows(json.loads((folder / f'{split}.json').read_text(encoding='utf-8')))
    sides = {
        f'{side}s': Ragged(load_array(folder / f'{side}.npy'), load_array(folder / f'{side}_starts.npy'))
        for side in SIDES
    }
    return PackedRows(sides, load_array(folder / 'rows.npy'))
