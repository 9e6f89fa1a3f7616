"""Reads SentencePiece models (T5's spiece.model, Marian's source.spm and target.spm) without that library.

Kudo and Richardson 2018 (arXiv:1808.06226): a table that normalizes characters, and pieces with log-probabilities
(Kudo 2018, arXiv:1804.10959). The file is a protocol buffer whose fields are numbered in sentencepiece_model.proto.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from research.errors import UserError
from research.interop.files import read_json

UNIGRAM, UNKNOWN, CONTROL = 1, 2, 3  # a model's type; types of pieces
MAX_SENTINELS = 100_000  # of T5
FOREIGN_SCORE = -1000.0  # of pieces of only the other side's model: used if nothing else fits


class Pieces(NamedTuple):
    """A model: pieces with log-probabilities and types, its type, and its text normalization."""

    pieces: list[tuple[str, float]]
    kinds: list[int]
    model: int
    table: bytes  # compiled replacements of characters
    begins_with_space: bool
    single_spaces: bool


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of a protocol buffer: an int, a four-byte float, or bytes.

    Raises:
      ValueError: for invalid data.
    """
    offset = 0

    def varint() -> int:
        nonlocal offset
        value = shift = 0
        while True:
            byte = data[offset]
            offset, value, shift = offset + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while offset < len(data):
        key = varint()
        number, wire_type = key >> 3, key & 7
        if wire_type == 0:
            yield number, varint()
            continue
        size = {1: 8, 2: None, 5: 4}[wire_type]
        size = varint() if size is None else size
        value, offset = data[offset : offset + size], offset + size
        if len(value) < size:
            raise ValueError('it ends too early')
        yield number, struct.unpack('<f', value)[0] if wire_type == 5 else value


def read_pieces(file: Path) -> Pieces:
    """Reads a model file.

    Raises:
      UserError: if it is damaged, or not a unigram model.
    """
    pieces, kinds, trainer, normalizer = [], [], {}, {}
    try:
        for number, value in fields(file.read_bytes()):
            if number == 1:
                piece = dict(fields(value))
                pieces.append((piece[1].decode(), piece.get(2, 0.0)))
                kinds.append(piece.get(3, 1))
            elif number == 2:
                trainer = dict(fields(value))
            elif number == 3:
                normalizer = dict(fields(value))
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f'{file} is damaged: not a SentencePiece model ({error})') from None
    model = Pieces(
        pieces, kinds, trainer.get(3, UNIGRAM), normalizer.get(2, b''),
        bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)),
    )  # fmt: skip
    if model.model != UNIGRAM or UNKNOWN not in kinds:
        raise UserError(f'{file} is not a unigram SentencePiece model, the only supported type')
    return model


def unigrams(model: Pieces, pieces: Sequence[tuple[str, float]], unknown: int, special: Sequence[str]) -> Tokenizer:
    """The tokenizer of `pieces` in the order of their ids, with the normalization of `model`."""
    tokenizer = Tokenizer(models.Unigram(list(pieces), unknown))
    steps = [normalizers.Precompiled(model.table)] if model.table else []
    if model.single_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(' {2,}'), ' ')]
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = 'always' if model.begins_with_space else 'never'
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def from_t5(folder: Path) -> Tokenizer:
    """T5's tokenizer from spiece.model: its pieces, then <extra_id_99> to <extra_id_0>.

    tokenizer_config.json may set their number, 100 by default.
    """
    model = read_pieces(folder / 'spiece.model')
    file = folder / 'tokenizer_config.json'
    count = (read_json(file) if file.exists() else {}).get('extra_ids', 100)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= MAX_SENTINELS:
        raise UserError(f'{file} is damaged: extra_ids must be an integer from 0 to {MAX_SENTINELS}, got {count!r:.60}')
    extra = [f'<extra_id_{number}>' for number in range(count - 1, -1, -1)]
    special = [piece for (piece, _), kind in zip(model.pieces, model.kinds, strict=True) if kind in (UNKNOWN, CONTROL)]
    pieces = [*model.pieces, *((name, 0.0) for name in extra)]
    return unigrams(model, pieces, model.kinds.index(UNKNOWN), [*special, *extra])


def from_marian(folder: Path, side: str = 'source') -> Tokenizer:
    """Marian's tokenizer of a side: pieces of <side>.spm, with the ids of vocab.json for both sides.

    Characters known only to the other side's model become its pieces.

    Raises:
      UserError: for a vocabulary whose ids are not 0, 1, ..., or without an unknown token.
    """
    model, ids = read_pieces(folder / f'{side}.spm'), read_json(folder / 'vocab.json')
    if not all(type(number) is int for number in ids.values()):
        raise UserError(f'{folder / "vocab.json"} is damaged: ids must be whole numbers')
    names = sorted(ids, key=ids.__getitem__)
    if [ids[name] for name in names] != list(range(len(names))) or '<unk>' not in ids:
        raise UserError(f'{folder / "vocab.json"}: ids must be 0, 1, ..., one of them that of <unk>')
    scores: Mapping[str, float] = dict(model.pieces)
    pieces = [(name, scores.get(name, FOREIGN_SCORE)) for name in names]
    return unigrams(model, pieces, ids['<unk>'], [name for name in ('</s>', '<unk>', '<pad>') if name in ids])
