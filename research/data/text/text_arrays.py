"""A text, or a pair of texts, as arrays of fixed shape for classifiers: tokens or n-grams."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.data.text import ngrams
from research.data.text import tokens as tokens_module
from research.data.text.corpus import save_array
from research.data.text.ngrams import GramSettings
from research.data.text.tokens import Frame, Tokens
from research.data.text.word_segmentation import WordSettings
from research.errors import UserError, unpack_part, without_name

RATIOS = 'ratios.npy'  # log-count ratios of n-grams, in the run's prepared folder
TOKENIZER = 'tokenizer.json'  # of published weights


class TextSettings(NamedTuple):
    """How to tokenize a text; published weights bring their own tokenizer."""

    tokens: tokens_module.Kind = 'words'
    clean: tuple = WordSettings().clean
    segment: Literal['words', 'space', 'chinese'] = 'words'
    stop_words: Literal['', 'english', 'chinese'] = ''
    stemmer: str = ''
    vocabulary: int = 20_000  # number of most frequent tokens (or n-grams) to keep
    min_count: int = 1  # minimum occurrences in the training texts
    length: int = 64  # tokens that the model reads
    cut: Literal['end', 'start', 'refuse'] = 'end'  # which end of a longer text to truncate
    padding: Literal['right', 'left'] = 'right'
    pair: bool = False  # a row has a second text

    @property
    def words(self) -> WordSettings:
        """Settings of word segmentation and cleaning."""
        return WordSettings(self.clean, self.segment, self.stop_words, self.stemmer)


class TextArrays(NamedTuple):
    """Encoding of texts as arrays, and the sizes that a model needs."""

    encode: Callable[[str, str | None], dict[str, np.ndarray]]  # (text, pair or None)
    size: int  # exclusive upper bound of ids
    length: int
    padding: str
    pair: bool
    count: Callable[[Mapping[str, Any]], int]  # (raw row) -> number of tokens before truncation
    room: int  # text tokens of a row that the model reads
    read: Callable[[Mapping[str, np.ndarray]], str] | None = None  # encoded row -> its tokens, for a person


def gram_settings(section: Mapping[str, Any]) -> tuple[GramSettings, dict[str, Any]]:
    """Splits `config.model` into the settings of n-grams and those of the module."""
    grams, rest = unpack_part(GramSettings, without_name(section), 'model')
    if grams.naive_bayes and rest.get('width', 10):
        raise UserError('config.model.naive_bayes is for a linear model: set config.model.width to 0')
    return grams.check(), rest


def prepare_texts(
    settings: TextSettings, section: Mapping[str, Any], rows: Sequence[Mapping], tokenizer: Any, folder: epath.Path
) -> None:
    """Stores the vocabulary of the training texts in 'vocabulary.json', 'ngrams.json' or 'tokenizer.json'.

    Args:
      settings: of `config.task`.
      section: `config.model`.
      rows: of the training split, with 'text' and optionally 'pair'.
      tokenizer: of published weights, or None.
      folder: the run's prepared folder.
    """
    if tokenizer is not None:
        (folder / TOKENIZER).write_text(tokenizer.to_str(), encoding='utf-8')
        return
    if section.get('name') == 'ngrams':
        grams, _ = gram_settings(section)
        if settings.tokens == 'bpe':
            raise UserError("config.task.tokens: n-grams are of 'words' or 'characters'")
        if not grams.buckets:
            pieces = tokens_module.make_pieces(settings.tokens, settings.words)
            lists = (joint_pieces(pieces, *texts_of(row, settings.pair)) for row in rows)
            ngrams.prepare_grams(lists, grams, settings.vocabulary, settings.min_count, folder)
        return
    texts = [text for row in rows for text in texts_of(row, settings.pair) if text is not None]
    kept = settings.vocabulary, settings.min_count
    tokens_module.prepare_tokens(settings.tokens, settings.words, texts, *kept, folder)


def prepare_ratios(arrays: TextArrays, rows: Sequence[Mapping], one_hot: np.ndarray, folder: epath.Path) -> None:
    """Stores the log-count ratios of n-grams; `one_hot` [rows, units] is 1 if a row is of a class."""
    features = [arrays.encode(*texts_of(row, arrays.pair))['features'] for row in rows]
    save_array(folder / RATIOS, ngrams.log_count_ratios(features, one_hot, arrays.size))


def read_texts(settings: TextSettings, section: Mapping[str, Any], folder: epath.Path) -> TextArrays:
    """Builds the encoding from what `prepare_texts` stored."""
    fixed = {'length': settings.length, 'padding': settings.padding, 'pair': settings.pair}
    if section.get('name') == 'ngrams':
        grams = ngrams.read_grams(gram_settings(section)[0], folder)
        pieces = tokens_module.make_pieces(settings.tokens, settings.words)

        def count_pieces(raw: Mapping[str, Any]) -> int:
            return len(joint_pieces(pieces, *texts_of(raw, settings.pair)))

        encode = make_gram_encode(settings, grams, pieces)
        return TextArrays(encode, grams.size, **fixed, count=count_pieces, room=settings.length)
    if section.get('weights'):
        tokens = tokens_module.pretrained_tokens(read_tokenizer(folder), str(section['weights']))
    else:
        tokens = tokens_module.read_tokens(settings.tokens, settings.words, folder)
    frame = Frame(settings.length, section.get('name') == 'transformer', settings.cut, settings.padding)

    def count(raw: Mapping[str, Any]) -> int:
        return sum(len(tokens.ids(text)) for text in texts_of(raw, settings.pair) if text is not None)

    def read(row: Mapping[str, np.ndarray]) -> str:
        return ' '.join(tokens.read(row['tokens']))

    room = tokens_module.room_of(tokens, frame, settings.pair)
    return TextArrays(make_token_encode(frame, tokens), tokens.size, **fixed, count=count, room=room, read=read)


def read_tokenizer(folder: epath.Path) -> Tokenizer:
    """The tokenizer of published weights that `prepare_texts` stored."""
    return Tokenizer.from_str(folder.joinpath(TOKENIZER).read_text(encoding='utf-8'))


def texts_of(row: Mapping[str, Any], pair: bool) -> tuple[str, str | None]:
    return row['text'], row['pair'] if pair else None


def joint_pieces(pieces: Callable[[str], list[str]], text: str, pair: str | None) -> list[str]:
    """Tokens of one text, or of two with an end token between them."""
    return pieces(text) + ([tokens_module.SPECIAL[tokens_module.END], *pieces(pair)] if pair is not None else [])


def make_gram_encode(settings: TextSettings, grams: ngrams.Grams, pieces: Callable[[str], list[str]]) -> Callable:
    """Makes `encode` for n-grams: 'features'. With naive Bayes each n-gram counts once."""

    def encode(text, pair):
        tokens = joint_pieces(pieces, text, pair)
        if len(tokens) > settings.length and settings.cut == 'refuse':
            raise UserError(
                f'the text has {len(tokens):,} tokens, the model reads {settings.length:,} (config.task.length): '
                "shorten it, or set config.task.cut to 'end'"
            )
        tokens = tokens[-settings.length :] if settings.cut == 'start' else tokens
        return {'features': ngrams.features(grams, tokens, settings.length, grams.settings.naive_bayes)}

    return encode


def make_token_encode(frame: Frame, tokens: Tokens) -> Callable:
    """Makes `encode` for rows of tokens: 'tokens', 'types' and 'length'."""

    def ids_of(text: str) -> list[int]:
        return tokens.ids(text) or [tokens.unknown]  # a text of only stop words becomes one unknown word

    def encode(text, pair):
        return tokens_module.frame_ids(tokens, frame, ids_of(text), None if pair is None else ids_of(pair))

    return encode
