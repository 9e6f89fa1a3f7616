"""Which tokens belong to one word, so that a word is hidden or kept whole."""

import unicodedata

import numpy as np
from jaxtyping import Integer
from tokenizers import Tokenizer, models

# GPT-2's byte-level alphabet writes bytes 0xA1 to 0xFF as the character of that number and 0x7F to 0xA0 from
# U+0121 on; spaces and controls are U+0100 to U+0120.
HIGH_BYTES = frozenset(map(chr, [*range(0xA1, 0x100), *range(0x122, 0x144)]))
LONG_LEADS = frozenset(map(chr, range(0xE0, 0xF5)))  # first byte of a character of three or four
IDEOGRAPHS = 0x2E80  # scripts without spaces begin about here: each character is a word


class Words:
    """Numbers the words of token rows, for one tokenizer.

    A word is a run of letters and digits; of scripts without spaces, one character. Any other token stands
    alone, and a byte-level token that begins with a space begins a word. Of word pieces (BERT's), those with
    the prefix go on with the word before them, and all others begin one.
    """

    def __init__(self, tokenizer: Tokenizer):
        whole = isinstance(tokenizer.model, models.WordLevel)
        pieces = isinstance(tokenizer.model, models.WordPiece)
        prefix = tokenizer.model.continuing_subword_prefix if pieces else ''
        size = tokenizer.get_vocab_size()
        self.special = np.zeros(size, bool)
        self.goes_on, self.left_open = np.zeros(size, bool), np.zeros(size, bool)
        self.special[list(tokenizer.get_added_tokens_decoder())] = True
        for token, index in tokenizer.get_vocab().items():
            if pieces:
                self.goes_on[index] = token.startswith(prefix)
                self.left_open[index] = not self.special[index]
            elif not self.special[index]:
                self.goes_on[index] = is_letter(token[0], whole) and not stands_alone(token[0], whole)
                self.left_open[index] = is_letter(token[-1], whole)

    def __call__(self, tokens: Integer[np.ndarray, 'length']) -> Integer[np.ndarray, 'length']:
        """Returns the number of the word of each token, counted from 0; -1 for special tokens."""
        joins = self.goes_on[tokens[1:]] & self.left_open[tokens[:-1]]
        numbers = np.concatenate([[0], np.cumsum(~joins)])
        return np.where(self.special[tokens], -1, numbers)


def is_letter(character: str, whole: bool) -> bool:
    """Returns whether a character (`whole`) or the sign of a byte belongs to words."""
    if whole:
        return character.isalnum() or character == '_' or unicodedata.category(character)[0] == 'M'
    return character.isascii() and (character.isalnum() or character == '_') or character in HIGH_BYTES


def stands_alone(character: str, whole: bool) -> bool:
    """Returns whether a word begins here whatever is before."""
    return ord(character) >= IDEOGRAPHS if whole else character in LONG_LEADS
