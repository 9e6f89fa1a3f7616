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
    """How a text becomes ids, and ids become what a person reads."""

    size: int  # ids are below it
    pieces: Callable[[str], list[str]]  # the tokens of a text as text
    ids: Callable[[str], list[int]]  # their ids, without begin, end and padding
    names: Sequence[str]  # by id
    pad: int = PAD
    unknown: int = UNKNOWN
    begin: int = BEGIN
    end: int = END
    between: int = 1  # how often [end] stands between two texts (RoBERTa: 2)

    def read(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """Returns the tokens of ids as text, without padding."""
        return [self.names[each] for each in ids if each != self.pad]


def make_pieces(kind: str, settings: WordSettings) -> Callable[[str], list[str]]:
    """Returns the function from a text to its words or characters, cleaned."""
    if kind == 'words':
        return words.make_words(settings)
    clean, stops = words.make_clean(settings.clean), words.stop_words(settings.stop_words)

    def characters(text: str) -> list[str]:
        words.check_unicode(text)
        return [each for each in ' '.join(clean(text).split()) if each not in stops]

    return characters


def commonest(counter: Mapping[str, int], most: int, least: int) -> list[str]:
    """Returns at most `most` of what occurs `least` times or more, the commonest first, then by name."""
    often = (name for name, count in counter.items() if count >= least)
    return sorted(often, key=lambda name: (-counter[name], name))[:most]


def prepare_tokens(
    kind: Kind, settings: WordSettings, texts: Iterable[str], most: int, least: int, folder: epath.Path
) -> None:
    """Builds the vocabulary of the training texts and stores it in `folder`.

    Args:
      kind: what a token is.
      settings: of words.
      texts: of the training split.
      most: tokens to keep, the commonest; for 'bpe' exactly so many.
      least: times that a token must occur.
      folder: of the run.
    """
    if kind == 'bpe':
        clean = words.make_clean(settings.clean)
        folder.joinpath('tokenizer.json').write_text(train_tokenizer(map(clean, texts), most).to_str())
        return
    pieces = make_pieces(kind, settings)
    counter = collections.Counter(piece for text in texts for piece in pieces(text))
    kept = commonest(counter, most, least)
    folder.joinpath('vocabulary.json').write_text(json.dumps(kept, ensure_ascii=False), encoding='utf-8')


def read_tokens(kind: Kind, settings: WordSettings, folder: epath.Path) -> Tokens:
    """Returns what `prepare_tokens` stored."""
    if kind == 'bpe':
        return byte_pairs(Tokenizer.from_str(folder.joinpath('tokenizer.json').read_text()), settings)
    names = [*SPECIAL, *json.loads(folder.joinpath('vocabulary.json').read_text(encoding='utf-8'))]
    numbers = {name: number for number, name in enumerate(names) if number >= len(SPECIAL)}
    pieces = make_pieces(kind, settings)

    def ids(text: str) -> list[int]:
        return [numbers.get(piece, UNKNOWN) for piece in pieces(text)]

    return Tokens(len(names), pieces, ids, names)


def byte_pairs(tokenizer: Tokenizer, settings: WordSettings) -> Tokens:
    """Returns a byte-level BPE with ids after the special ones; its own end token (0) is never used."""
    clean, shift = words.make_clean(settings.clean), len(SPECIAL) - 1
    size = tokenizer.get_vocab_size()
    names = [*SPECIAL, *(tokenizer.decode([number]) for number in range(1, size))]

    def ids(text: str) -> list[int]:
        return [each + shift for each in encode_text(tokenizer, clean(text))]

    def pieces(text: str) -> list[str]:
        return [tokenizer.id_to_token(each - shift) for each in ids(text)]  # pyright: ignore[reportReturnType]

    return Tokens(size + shift, pieces, ids, names)


def pretrained_tokens(tokenizer: Tokenizer, about: str) -> Tokens:
    """Returns the tokens of BERT's family, with the special ones of its tokenizer.

    Raises:
      UserError: for a tokenizer that has none to frame a text with.
    """
    kinds = {
        'pad': ('[PAD]', '<pad>'), 'unknown': ('[UNK]', '<unk>'), 'begin': ('[CLS]', '<s>'), 'end': ('[SEP]', '</s>'),
    }  # fmt: skip
    found = {}
    for kind, names in kinds.items():
        numbers = [number for number in map(tokenizer.token_to_id, names) if number is not None]
        if not numbers:
            raise UserError(f'{about}: its tokenizer has no {" or ".join(names)}: it is of no encoder of texts')
        found[kind] = numbers[0]
    names = [tokenizer.id_to_token(number) or '' for number in range(tokenizer.get_vocab_size())]

    def ids(text: str) -> list[int]:
        return encode_text(tokenizer, text)

    def pieces(text: str) -> list[str]:
        return [names[each] for each in ids(text)]

    between = 1 if tokenizer.token_to_id('[SEP]') is not None else 2
    return Tokens(len(names), pieces, ids, names, between=between, **found)


class Frame(NamedTuple):
    """How ids are laid into a row: one text or two, cut and padded."""

    length: int  # ids of a row
    framed: bool = False  # [begin] text [end] pair [end]; else text, or text [end] pair
    cut: Literal['end', 'start', 'refuse'] = 'end'  # which end of a text that is too long is lost
    padding: Literal['right', 'left'] = 'right'


def lay(
    tokens: Tokens, frame: Frame, first: Sequence[int], second: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Returns 'tokens' and 'types' int32 [length] and 'length' int32.

    'length' are the ids that are no padding; types are 1 for the second text and the [end] after it. Of two
    texts that are too long together, the longer loses tokens first (as in BERT, Devlin et al. 2019).

    Raises:
      UserError: for a text that is too long, where it must not be cut.
    """
    parts = [list(first)] + ([] if second is None else [list(second)])
    pair = (len(parts) - 1) * tokens.between
    room, there = room_of(tokens, frame, second is not None), sum(map(len, parts))
    if there > room and frame.cut == 'refuse':
        raise UserError(
            f'the text has {there:,} tokens, the model reads {room:,} (config.task.length={frame.length}): shorten it, '
            "or set config.task.cut to 'end' or 'start'"
        )
    if there > room:
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
    """Returns how many ids of texts a row holds, beside those that frame and divide them."""
    return frame.length - pair * tokens.between - 2 * frame.framed


def kept(part: list[int], size: int, cut: str) -> list[int]:
    """Returns the first or the last `size` ids."""
    return part[:size] if cut == 'end' else part[len(part) - size :]


def shares(parts: Sequence[Sequence[int]], room: int) -> list[int]:
    """Returns how many ids of each text fit, the longer one losing first."""
    sizes = [len(part) for part in parts]
    while sum(sizes) > room:
        sizes[sizes.index(max(sizes))] -= 1
    return sizes
