"""A text as words: cleaning, segmentation, stop words and stemming, each a setting."""

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
WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_+")

# Function words that say nothing of what a text is about; written for this project.
CHINESE_STOP_WORDS = frozenset(
    '的 了 着 过 地 得 之 在 是 有 和 与 及 或 而 且 但 但是 并 并且 也 都 就 才 '
    '还 又 再 很 太 更 最 只 不 没 没有 吗 呢 吧 啊 呀 把 被 让 给 对 对于 从 到 '
    '向 往 由 以 于 为 为了 因为 所以 如果 虽然 这 那 这个 那个 这些 那些 这里 那里 哪 什么 怎么 谁 我 '
    '你 他 她 它 我们 你们 他们 她们 它们 自己 大家 一 个 一个 些 一些 每 各 上 下 里 中 时 时候 '
    '以后 以前 要 会 能 可以 请 等 所 其 '
    '， 。 、 ； ： ？ ！ “ ” ‘ ’ （ ） 《 》 , ; : ? ! ( )'.split()
)


class WordSettings(NamedTuple):
    """How a text becomes words, in this order: clean, segment, stop words, stemmer."""

    clean: tuple = ('unicode', 'lower')  # of CLEAN, in this order
    segment: Literal['words', 'space', 'chinese'] = 'words'
    stop_words: Literal['', 'english', 'chinese'] = ''  # that are left out
    stemmer: str = ''  # a language of Snowball, such as 'english'; '' for whole words


def without_html(text: str) -> str:
    """Returns a text without tags, with '&amp;' and its like as characters."""
    return html.unescape(TAG.sub(' ', text))


def without_accents(text: str) -> str:
    """Returns letters without accents: 'café' is 'cafe'."""
    split = unicodedata.normalize('NFD', text)
    return unicodedata.normalize('NFC', ''.join(each for each in split if not unicodedata.combining(each)))


def without_punctuation(text: str) -> str:
    """Returns a text with a space for each punctuation mark and symbol of any script."""
    return ''.join(' ' if unicodedata.category(each)[0] in 'PS' else each for each in text)


CLEAN = {
    'unicode': functools.partial(unicodedata.normalize, 'NFKC'),  # full-width forms, ligatures: one form each
    'lower': str.lower,
    'html': without_html,
    'addresses': functools.partial(ADDRESS.sub, ' '),  # of the web and of mail: left out
    'numbers': functools.partial(NUMBER.sub, '0'),  # every number is the same word
    'accents': without_accents,
    'punctuation': without_punctuation,
}


def words_of(text: str) -> list[str]:
    """Returns words with their apostrophes and combining marks, and every other sign by itself."""
    return (WORD if text.isascii() else word_with_marks()).findall(text)


@functools.cache
def word_with_marks() -> re.Pattern:
    r"""Returns `WORD` for all scripts: letters and digits with the marks that combine with them.

    \w has no vowel signs and no virama, so that Devanagari, Thai, Tamil, Hebrew with points and decomposed accents
    would fall into letters. The joiners U+200C and U+200D stand inside words too.
    """
    codes = [code for code in range(0x300, 0xE01F0) if unicodedata.category(chr(code))[0] == 'M'] + [0x200C, 0x200D]
    codes.sort()
    starts = [code for code, before in zip(codes, [-1, *codes], strict=False) if code != before + 1]
    stops = [code for code, after in zip(codes, [*codes[1:], -1], strict=True) if code != after - 1]
    marks = ''.join(f'{chr(start)}-{chr(stop)}' for start, stop in zip(starts, stops, strict=True))
    run = rf'[^\W_]+(?:[{marks}]+[^\W_]*)*'
    return re.compile(rf"{run}(?:['’]{run})*|[^\w\s]|_+")


def chinese_words(text: str) -> list[str]:
    """Returns Chinese words by a dictionary and, for unknown ones, a hidden Markov model (rjieba)."""
    return [word for word in require('rjieba').cut(text) if not word.isspace()]


def stop_words(name: str) -> frozenset[str]:
    """Returns a list of stop words by language; '' is none."""
    if name == 'english':
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        return frozenset(ENGLISH_STOP_WORDS)
    return choose(name, {'': frozenset(), 'chinese': CHINESE_STOP_WORDS}, 'config.task.stop_words')


def make_stem(language: str) -> Callable[[str], str]:
    """Returns a function from a word in small letters to its stem (Porter's Snowball); '' changes nothing."""
    if not language:
        return str
    snowballstemmer = require('snowballstemmer')
    choose(language, {name: name for name in snowballstemmer.algorithms()}, 'config.task.stemmer')
    return functools.lru_cache(1 << 16)(snowballstemmer.stemmer(language).stemWord)


def make_clean(names: tuple) -> Callable[[str], str]:
    """Returns the function that applies cleaning steps in order; a `UserError` for an unknown one."""
    steps = [choose(name, CLEAN, 'config.task.clean') for name in names]

    def clean(text: str) -> str:
        for step in steps:
            text = step(text)
        return text

    return clean


def make_words(settings: WordSettings) -> Callable[[str], list[str]]:
    """Returns the function from a text to its words.

    Raises:
      UserError: for an unknown step of cleaning, language or segmentation; from the function, for half of a
        character (a lone surrogate), which no text can hold.
    """
    ways = {'words': words_of, 'space': str.split, 'chinese': chinese_words}
    segment = choose(settings.segment, ways, 'config.task.segment')
    clean, stops, stem = make_clean(settings.clean), stop_words(settings.stop_words), make_stem(settings.stemmer)

    def words(text: str) -> list[str]:
        check_unicode(text)
        return [stem(word) for word in segment(clean(text)) if word not in stops]

    return words


def check_unicode(text: str) -> None:
    """Raises a `UserError` for characters that no UTF-8 text can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f'the text holds half of a character at position {error.start}: {error.reason}') from None
