"""A text as words: cleaning, segmentation, stop words and stemming, each configurable."""

import functools
import html
import re
import unicodedata
from collections.abc import Callable
from typing import Literal, NamedTuple

from research.errors import UserError, choose
from research.extras import require

TAG = re.compile(r'<[^<>]*>')
ADDRESS = re.compile(r'(?:https?://|www\.)\S+|\S+@\S+\.\S+')
NUMBER = re.compile(r'\d+(?:[.,]\d+)*')
CHINESE = '\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff'  # and Japanese: no spaces between words
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_+")

# Function words without information on the topic of a text; compiled for this project.
CHINESE_STOP_WORDS = frozenset(
    '的 了 着 过 地 得 之 在 是 有 和 与 及 或 而 且 但 但是 并 并且 也 都 就 才 '
    '还 又 再 很 太 更 最 只 不 没 没有 吗 呢 吧 啊 呀 把 被 让 给 对 对于 从 到 '
    '向 往 由 以 于 为 为了 因为 所以 如果 虽然 这 那 这个 那个 这些 那些 这里 那里 哪 什么 怎么 谁 我 '
    '你 他 她 它 我们 你们 他们 她们 它们 自己 大家 一 个 一个 些 一些 每 各 上 下 里 中 时 时候 '
    '以后 以前 要 会 能 可以 请 等 所 其 '
    '， 。 、 ； ： ？ ！ “ ” ‘ ’ （ ） 《 》 , ; : ? ! ( )'.split()
)


class WordSettings(NamedTuple):
    """Steps from a text to words, in this order: clean, segment, stop words, stemmer."""

    clean: tuple = ('unicode', 'lower')  # of CLEAN, in this order
    segment: Literal['words', 'space', 'chinese'] = 'words'
    stop_words: Literal['', 'english', 'chinese'] = ''  # language of the words to leave out
    stemmer: str = ''  # a language of Snowball, such as 'english'; '' for whole words


def without_html(text: str) -> str:
    """Removes tags and decodes entities such as '&amp;'."""
    return html.unescape(TAG.sub(' ', text))


def without_accents(text: str) -> str:
    """Removes accents: 'café' becomes 'cafe'."""
    letters = (character for character in unicodedata.normalize('NFD', text) if not unicodedata.combining(character))
    return unicodedata.normalize('NFC', ''.join(letters))


def without_punctuation(text: str) -> str:
    """Replaces punctuation marks and symbols of any script by spaces."""
    return ''.join(' ' if unicodedata.category(character)[0] in 'PS' else character for character in text)


CLEAN = {
    'unicode': functools.partial(unicodedata.normalize, 'NFKC'),  # unify full-width forms and ligatures
    'lower': str.lower,
    'html': without_html,
    'addresses': functools.partial(ADDRESS.sub, ' '),  # remove web and mail addresses
    'numbers': functools.partial(NUMBER.sub, '0'),  # make every number the same word
    'accents': without_accents,
    'punctuation': without_punctuation,
}


def words_of(text: str) -> list[str]:
    """Words with their apostrophes and combining marks, and every other symbol alone."""
    return (WORD if text.isascii() else word_with_marks()).findall(text)


@functools.cache
def combining_marks() -> str:
    """Ranges of all combining marks and the joiners U+200C and U+200D, for a class of a regular expression."""
    codes = [code for code in range(0x300, 0xE01F0) if unicodedata.category(chr(code))[0] == 'M'] + [0x200C, 0x200D]
    codes.sort()
    starts = [code for code, before in zip(codes, [-1, *codes], strict=False) if code != before + 1]
    stops = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code != after - 1]
    return ''.join(f'{chr(start)}-{chr(stop)}' for start, stop in zip(starts, stops, strict=True))


@functools.cache
def word_with_marks() -> re.Pattern:
    r"""`WORD` for all scripts: letters and digits with their combining marks.

    \w excludes vowel signs and viramas, so it would split Devanagari, Thai, Tamil, pointed Hebrew and decomposed
    accents into letters. The joiners U+200C and U+200D also belong to words.
    """
    marks = combining_marks()
    run = rf'[^\W_]+(?:[{marks}]+[^\W_]*)*'
    return re.compile(rf"{run}(?:['’]{run})*|[^\w\s]|_+")


@functools.cache
def piece_pattern() -> re.Pattern:
    """The smallest units of which an answer may consist, with their combining marks.

    Words without apostrophes, Chinese and Japanese characters alone, and symbols alone. An emoji with its skin tone or
    joined emojis is one unit, and so is a flag.
    """
    marks = combining_marks()
    run = rf'[^\W_{CHINESE}]+(?:[{marks}]+[^\W_{CHINESE}]*)*'
    flag = r'[\U0001F1E6-\U0001F1FF]{2}'
    symbol = rf'[^\w\s](?:[{marks}\U0001F3FB-\U0001F3FF]|(?<=\u200d)[^\w\s])*'
    return re.compile(rf'{run}|[{CHINESE}][{marks}]*|{flag}|{symbol}|_+')


def chinese_words(text: str) -> list[str]:
    """Chinese words by a dictionary and, for unknown ones, a hidden Markov model (rjieba)."""
    return [word for word in require('rjieba').cut(text) if not word.isspace()]


def stop_words(name: str) -> frozenset[str]:
    """The stop words of a language; '' has none."""
    if name == 'english':
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return frozenset(ENGLISH_STOP_WORDS)
    return choose(name, {'': frozenset(), 'chinese': CHINESE_STOP_WORDS}, 'config.task.stop_words')


def make_stem(language: str) -> Callable[[str], str]:
    """Makes a function from a lower-case word to its stem (Snowball); '' is the identity."""
    if not language:
        return str
    snowballstemmer = require('snowballstemmer')
    choose(language, {name: name for name in snowballstemmer.algorithms()}, 'config.task.stemmer')
    return functools.lru_cache(1 << 16)(snowballstemmer.stemmer(language).stemWord)


def make_clean(names: tuple) -> Callable[[str], str]:
    """Makes the function that applies cleaning steps in order; raises UserError for an unknown step."""
    steps = [choose(name, CLEAN, 'config.task.clean') for name in names]

    def clean(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return clean


def make_words(settings: WordSettings) -> Callable[[str], list[str]]:
    """Makes the function from a text to its words.

    Raises:
      UserError: for an unknown cleaning step, language or segmentation; the function raises it for lone surrogates.
    """
    segmentations = {'words': words_of, 'space': str.split, 'chinese': chinese_words}
    segment = choose(settings.segment, segmentations, 'config.task.segment')
    clean, stops, stem = make_clean(settings.clean), stop_words(settings.stop_words), make_stem(settings.stemmer)

    def words(text: str) -> list[str]:
        check_unicode(text)
        return [stem(word) for word in segment(clean(text)) if word not in stops]

    return words


def check_unicode(text: str) -> None:
    """Raises UserError for lone surrogates, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f'the text has half of a character at position {error.start}: {error.reason}') from None
