"""SentencePiece models (T5's spiece.model, Marian's source.spm and target.spm) as tokenizers, without that library.

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
EXTRA = 100_000  # most tokens of T5 for gaps
FOREIGN = -1000.0  # score of what only the other side's model knows: taken where nothing else fits


class Pieces(NamedTuple):
    """A model: pieces with their log-probabilities and types, its type, and how text is normalized before."""

    pieces: list[tuple[str, float]]
    kinds: list[int]
    model: int
    table: bytes  # replacements of characters, compiled
    begins_with_space: bool
    single_spaces: bool


def fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Yields (number, value) of a message: an int, float (of four bytes) or bytes.

    Raises:
      ValueError: for what is no protocol buffer.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place, value, shift = place + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while place < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if kind == 0:
            yield number, varint()
            continue
        size = {1: 8, 2: None, 5: 4}[kind]
        size = varint() if size is None else size
        value, place = data[place : place + size], place + size
        if len(value) < size:
            raise ValueError('it ends too early')
        yield number, struct.unpack('<f', value)[0] if kind == 5 else value


def read_pieces(file: Path) -> Pieces:
    """Returns the model of a file.

    Raises:
      UserError: for a damaged one, or pieces that are no unigrams.
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
        raise UserError(f'{file} is damaged: it is no SentencePiece model ({error})') from None
    found = Pieces(
        pieces, kinds, trainer.get(3, UNIGRAM), normalizer.get(2, b''),
        bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)),
    )  # fmt: skip
    if found.model != UNIGRAM or UNKNOWN not in kinds:
        raise UserError(f'{file} is no SentencePiece model of unigrams, the only kind that is read')
    return found


def unigrams(found: Pieces, pieces: Sequence[tuple[str, float]], unknown: int, special: Sequence[str]) -> Tokenizer:
    """Returns the tokenizer of `pieces` in the order of their ids, with the normalization of `found`."""
    tokenizer = Tokenizer(models.Unigram(list(pieces), unknown))
    steps = [normalizers.Precompiled(found.table)] if found.table else []
    if found.single_spaces:
        steps += [normalizers.Strip(), normalizers.Replace(Regex(' {2,}'), ' ')]
    tokenizer.normalizer = normalizers.Sequence(steps)
    scheme = 'always' if found.begins_with_space else 'never'
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def from_t5(folder: Path) -> Tokenizer:
    """Returns T5's tokenizer of spiece.model: its pieces, then <extra_id_99> to <extra_id_0>.

    tokenizer_config.json says how many of these there are, where they are not 100.
    """
    found = read_pieces(folder / 'spiece.model')
    file = folder / 'tokenizer_config.json'
    count = (read_json(file) if file.exists() else {}).get('extra_ids', 100)
    if isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= EXTRA:
        raise UserError(f'{file} is damaged: extra_ids must be a whole number from 0 to {EXTRA}, got {count!r:.60}')
    extra = [f'<extra_id_{number}>' for number in range(count - 1, -1, -1)]
    special = [piece for (piece, _), kind in zip(found.pieces, found.kinds, strict=True) if kind in (UNKNOWN, CONTROL)]
    pieces = [*found.pieces, *((name, 0.0) for name in extra)]
    return unigrams(found, pieces, found.kinds.index(UNKNOWN), [*special, *extra])


def from_marian(folder: Path, side: str = 'source') -> Tokenizer:
    """Returns Marian's tokenizer of a side: pieces of <side>.spm, whose ids are those of vocab.json for both.

    Characters that only the other side's model knows are read as its pieces.

    Raises:
      UserError: for a vocabulary whose ids are not 0, 1, ..., or that knows no unknown token.
    """
    found, ids = read_pieces(folder / f'{side}.spm'), read_json(folder / 'vocab.json')
    if not all(type(number) is int for number in ids.values()):
        raise UserError(f'{folder / "vocab.json"} is damaged: ids must be whole numbers')
    names = sorted(ids, key=ids.__getitem__)
    if [ids[name] for name in names] != list(range(len(names))) or '<unk>' not in ids:
        raise UserError(f'{folder / "vocab.json"}: ids must be 0, 1, ..., one of them that of <unk>')
    scores: Mapping[str, float] = dict(found.pieces)
    pieces = [(name, scores.get(name, FOREIGN)) for name in names]
    return unigrams(found, pieces, ids['<unk>'], [name for name in ('</s>', '<unk>', '<pad>') if name in ids])
