"""A text as a row of ids of fixed length for classifiers: words, characters or byte pairs."""

import collections
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.data.text import word_segmentation as words
from research.data.text.corpus import encode_text, train_tokenizer
from research.data.text.word_segmentation import WordSettings
from research.errors import UserError

SPECIAL = ('[pad]', '[unknown]', '[begin]', '[end]')
PAD, UNKNOWN, BEGIN, END = range(4)
Kind = Literal['words', 'characters', 'bpe']


class Tokens(NamedTuple):
    """Conversion of a text to ids, and of ids to readable tokens."""

    size: int  # exclusive upper bound of ids
    pieces: Callable[[str], list[str]]  # the tokens of a text as text
    ids: Callable[[str], list[int]]  # their ids, without begin, end and padding
    names: Sequence[str]  # by id
    pad: int = PAD
    unknown: int = UNKNOWN
    begin: int = BEGIN
    end: int = END
    between: int = 1  # number of [end] tokens between two texts (RoBERTa: 2)

    def read(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Tokens of ids as text, without padding."""
        return [self.names[index] for index in ids if index != self.pad]


def make_pieces(kind: str, settings: WordSettings) -> Callable[[str], list[str]]:
    """Makes the function from a text to its cleaned words or characters."""
    if kind == 'words':
        return words.make_words(settings)
    clean, stops = words.make_clean(settings.clean), words.stop_words(settings.stop_words)

    def characters(text: str) -> list[str]:
        words.check_unicode(text)
        return [character for character in ' '.join(clean(text).split()) if character not in stops]

    return characters


def commonest(counter: Mapping[str, int], limit: int, min_count: int) -> list[str]:
    """At most `limit` items that occur `min_count` times or more, by frequency, then by name."""
    often = (name for name, count in counter.items() if count >= min_count)
    return sorted(often, key=lambda name: (-counter[name], name))[:limit]


def prepare_tokens(
    kind: Kind, settings: WordSettings, texts: Iterable[str], limit: int, min_count: int, folder: epath.Path
) -> None:
    """Builds the vocabulary of the training texts and stores it in `folder`.

    Args:
      kind: of token.
      settings: of words.
      texts: of the training split.
      limit: number of most frequent tokens to keep; for 'bpe', exactly this many.
      min_count: minimum occurrences of a token.
      folder: of the run.
    """
    if kind == 'bpe':
        clean = words.make_clean(settings.clean)
        folder.joinpath('tokenizer.json').write_text(train_tokenizer(map(clean, texts), limit).to_str())
        return
    pieces = make_pieces(kind, settings)
    counter = collections.Counter(piece for text in texts for piece in pieces(text))
    kept = commonest(counter, limit, min_count)
    folder.joinpath('vocabulary.json').write_text(json.dumps(kept, ensure_ascii=False), encoding='utf-8')


def read_tokens(kind: Kind, settings: WordSettings, folder: epath.Path) -> Tokens:
    """Reads what `prepare_tokens` stored."""
    if kind == 'bpe':
        return byte_pairs(Tokenizer.from_str(folder.joinpath('tokenizer.json').read_text()), settings)
    names = [*SPECIAL, *json.loads(folder.joinpath('vocabulary.json').read_text(encoding='utf-8'))]
    numbers = {name: number for number, name in enumerate(names) if number >= len(SPECIAL)}
    pieces = make_pieces(kind, settings)

    def ids(text: str) -> list[int]:
        return [numbers.get(piece, UNKNOWN) for piece in pieces(text)]

    return Tokens(len(names), pieces, ids, names)


def byte_pairs(tokenizer: Tokenizer, settings: WordSettings) -> Tokens:
    """A byte-level BPE with ids after the special ones; its own end token (0) is never used."""
    clean, shift = words.make_clean(settings.clean), len(SPECIAL) - 1
    size = tokenizer.get_vocab_size()
    names = [*SPECIAL, *(tokenizer.decode([number]) for number in range(1, size))]

    def ids(text: str) -> list[int]:
        return [index + shift for index in encode_text(tokenizer, clean(text))]

    def pieces(text: str) -> list[str]:
        return [tokenizer.id_to_token(index - shift) for index in ids(text)]  # pyright: ignore[reportReturnType]

    return Tokens(size + shift, pieces, ids, names)


def pretrained_tokens(tokenizer: Tokenizer, origin: str) -> Tokens:
    """Tokens of BERT-like models, with the special tokens of their tokenizer.

    Raises:
      UserError: for a tokenizer without begin, end, padding or unknown token.
    """
    kinds = {
        'pad': ('[PAD]', '<pad>'), 'unknown': ('[UNK]', '<unk>'), 'begin': ('[CLS]', '<s>'), 'end': ('[SEP]', '</s>'),
    }  # fmt: skip
    special = {}
    for kind, names in kinds.items():
        numbers = [number for number in map(tokenizer.token_to_id, names) if number is not None]
        if not numbers:
            raise UserError(f'{origin}: its tokenizer has no {" or ".join(names)}: it is not of a text encoder')
        special[kind] = numbers[0]
    names = [tokenizer.id_to_token(number) or '' for number in range(tokenizer.get_vocab_size())]

    def ids(text: str) -> list[int]:
        return encode_text(tokenizer, text)

    def pieces(text: str) -> list[str]:
        return [names[index] for index in ids(text)]

    between = 1 if tokenizer.token_to_id('[SEP]') is not None else 2
    return Tokens(len(names), pieces, ids, names, between=between, **special)


class Frame(NamedTuple):
    """Layout of ids in a row: one text or two, truncated and padded."""

    length: int  # ids of a row
    framed: bool = False  # [begin] text [end] pair [end]; else text, or text [end] pair
    cut: Literal['end', 'start', 'refuse'] = 'end'  # which end of a longer text to truncate
    padding: Literal['right', 'left'] = 'right'


def frame_ids(
    tokens: Tokens, frame: Frame, first: Sequence[int], second: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Lays ids into a row: 'tokens' and 'types' int32 [length], and 'length' int32.

    'length' counts the ids without padding; types are 1 for the second text and the [end] after it. If two texts are
    too long together, the longer one is truncated first (as in BERT, Devlin et al. 2019).

    Raises:
      UserError: for a text that is too long and must not be truncated.
    """
    parts = [list(first)] + ([] if second is None else [list(second)])
    pair = (len(parts) - 1) * tokens.between
    room, count = room_of(tokens, frame, second is not None), sum(map(len, parts))
    if count > room and frame.cut == 'refuse':
        raise UserError(
            f'the text has {count:,} tokens, the model reads {room:,} (config.task.length={frame.length}): shorten it, '
            "or set config.task.cut to 'end' or 'start'"
        )
    if count > room:
        parts = [kept(part, size, frame.cut) for part, size in zip(parts, shares(parts, room), strict=True)]
    ids = ([tokens.begin] if frame.framed else []) + parts[0]
    ids += [tokens.end] * (pair or frame.framed)
    types = [0] * len(ids)
    if second is not None:
        ids += parts[1] + ([tokens.end] if frame.framed else [])
        types += [1] * (len(ids) - len(types))
    left = frame.length - len(ids) if frame.padding == 'left' else 0
    row, kinds = np.full(frame.length, tokens.pad, np.int32), np.zeros(frame.length, np.int32)
    row[left : left + len(ids)], kinds[left : left + len(ids)] = ids, types
    return {'tokens': row, 'types': kinds, 'length': np.int32(len(ids))}  # pyright: ignore[reportReturnType]


def room_of(tokens: Tokens, frame: Frame, pair: bool) -> int:
    """Number of text ids that a row can hold, besides begin and end tokens."""
    return frame.length - pair * tokens.between - 2 * frame.framed


def kept(part: list[int], size: int, cut: str) -> list[int]:
    return part[:size] if cut == 'end' else part[len(part) - size :]


def shares(parts: Sequence[Sequence[int]], room: int) -> list[int]:
    """Number of ids of each text that fit; the longer text is truncated first."""
    sizes = [len(part) for part in parts]
    while sum(sizes) > room:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes
