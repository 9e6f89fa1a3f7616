"""Groups tokens into words, so that a word is masked or kept completely."""

import unicodedata

import numpy as np
from jaxtyping import Integer
from tokenizers import Tokenizer, models

# GPT-2's byte-level alphabet writes bytes 0xA1 to 0xFF as the character of that number and 0x7F to 0xA0 from
# U+0121 on; spaces and controls are U+0100 to U+0120.
HIGH_BYTES = frozenset(map(chr, [*range(0xA1, 0x100), *range(0x122, 0x144)]))
LONG_LEADS = frozenset(map(chr, range(0xE0, 0xF5)))  # first byte of a character of three or four
FIRST_IDEOGRAPH = 0x2E80  # scripts without spaces begin about here: each character is a word


class Words:
    """Numbers the words of token rows, for one tokenizer.

    A word is a run of letters and digits or, in scripts without spaces, one character. Any other token is a word of its
    own. A byte-level token with a leading space begins a word. Word pieces (BERT) with the prefix continue the previous
    word, and all others begin one.
    """

    def __init__(self, tokenizer: Tokenizer):
        whole = isinstance(tokenizer.model, models.WordLevel)
        pieces = isinstance(tokenizer.model, models.WordPiece)
        prefix = tokenizer.model.continuing_subword_prefix if pieces else ''
        size = tokenizer.get_vocab_size()
        self.special = np.zeros(size, bool)
        self.continues, self.extensible = np.zeros(size, bool), np.zeros(size, bool)
        self.special[list(tokenizer.get_added_tokens_decoder())] = True
        for token, index in tokenizer.get_vocab().items():
            if pieces:
                self.continues[index] = token.startswith(prefix)
                self.extensible[index] = not self.special[index]
            elif not self.special[index]:
                self.continues[index] = is_letter(token[0], whole) and not stands_alone(token[0], whole)
                self.extensible[index] = is_letter(token[-1], whole)

    def __call__(self, tokens: Integer[np.ndarray, 'length']) -> Integer[np.ndarray, 'length']:
        """The number of the word of each token, counted from 0; -1 for special tokens."""
        joins = self.continues[tokens[1:]] & self.extensible[tokens[:-1]]
        numbers = np.concatenate([[0], np.cumsum(~joins)])
        return np.where(self.special[tokens], -1, numbers)


def is_letter(character: str, whole: bool) -> bool:
    """Whether a character (`whole`) or the symbol of a byte belongs to words."""
    if whole:
        return character.isalnum() or character == '_' or unicodedata.category(character)[0] == 'M'
    return character.isascii() and (character.isalnum() or character == '_') or character in HIGH_BYTES


def stands_alone(character: str, whole: bool) -> bool:
    """Whether a character always begins a word."""
    return ord(character) >= FIRST_IDEOGRAPH if whole else character in LONG_LEADS
