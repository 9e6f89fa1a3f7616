"""Generated tokens to text, piece by piece, and strings that end a text.

The pieces of a text are together what `tokenizer.decode` makes of all its tokens; no piece ends inside a character.
"""

import codecs
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

BYTE_TOKEN = re.compile(r'<0x[0-9A-Fa-f]{2}>')  # SentencePiece's name of a single byte


class Texts:
    """Text of the tokens of one tokenizer; made once, read by many streams and threads.

    Args:
      tokenizer: `tokenizers.Tokenizer`.
      hidden: ids that are not part of a text, such as the end; None: all special tokens.
    """

    def __init__(self, tokenizer: Any, hidden: Collection[int] | None = None):
        added = tokenizer.get_added_tokens_decoder()
        special = {index for index, token in added.items() if token.special}
        self.tokenizer, self.hidden = tokenizer, frozenset(special if hidden is None else hidden)
        # An embedding may have more rows than the tokenizer has tokens; those have no text.
        self.names = {index: name for name, index in tokenizer.get_vocab(with_added_tokens=True).items()}
        self.bytes = token_bytes(tokenizer, self.names)

    def decode(self, tokens: Sequence[int]) -> str:
        """Decodes a whole text."""
        shown = [int(token) for token in tokens if token not in self.hidden]
        return self.tokenizer.decode(shown, skip_special_tokens=False)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token, for lists of log-probabilities; hidden tokens have the bytes of their names."""
        if self.bytes is not None and token not in self.hidden:
            return self.bytes.get(token, b'')
        name = self.names.get(token, '')
        if token in self.hidden:
            return name.encode()
        if BYTE_TOKEN.fullmatch(name):
            return bytes([int(name[3:5], 16)])
        return name.replace('\u2581', ' ').encode()  # SentencePiece's mark of a space

    def token_text(self, token: int) -> str:
        """The text of one token, for lists of log-probabilities; bytes of incomplete characters become U+FFFD."""
        return self.token_bytes(token).decode('utf-8', 'replace')

    def stream(self, stops: Sequence[str] = ()) -> 'TextStream':
        """Begins a text that ends before the first complete string of `stops`."""
        return TextStream(self, stops)


def token_bytes(tokenizer: Any, names: dict[int, str]) -> dict[int, bytes] | None:
    """The bytes of each token, if a text is the bytes of its tokens one after another; None otherwise."""
    described: dict[str, Any] = json.loads(tokenizer.to_str())['decoder'] or {'type': ''}
    kinds = {part['type'] for part in described.get('decoders', [described])}  # of a sequence
    if kinds == {'Fuse'}:
        return {index: name.encode() for index, name in names.items()}
    if kinds != {'ByteLevel'}:
        return None
    table = byte_table()

    def of_name(name: str) -> bytes:
        codes = [table.get(character, -1) for character in name]
        return name.encode() if -1 in codes else bytes(codes)

    return {index: of_name(name) for index, name in names.items()}


def byte_table() -> dict[str, int]:
    """The byte of each character in the names of byte-level tokens (GPT-2, Radford et al. 2019).

    Printable bytes of Latin-1 stand for themselves; the others have the characters from U+0100 on, in order.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + number): byte for number, byte in enumerate(others)}


class TextStream:
    """One text that grows by tokens.

    The end of a text may belong to a stop string that is still incomplete; `push` holds it back. `stopped` becomes
    True with the token that completes a stop string, for any sizes of pieces; later tokens add nothing.
    """

    def __init__(self, texts: Texts, stops: Sequence[str] = ()):
        self.stops, self.stopped, self.held = tuple(stops), False, ''
        self.pieces = BytePieces(texts) if texts.bytes is not None else WindowPieces(texts)

    def push(self, token: int) -> str:
        """Adds a token and returns the text that is certain now, perhaps ''."""
        return '' if self.stopped else self.release(self.pieces.push(int(token)))

    def finish(self) -> str:
        """Returns the rest of the text; an incomplete character at its end becomes U+FFFD."""
        if self.stopped:
            return ''
        text = self.release(self.pieces.finish())
        text, self.held = text if self.stopped else text + self.held, ''
        return text

    def release(self, text: str) -> str:
        if not self.stops or not text:
            return text
        text = self.held + text
        complete = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        if complete:  # the one whose last character comes first; of several, the longest
            self.stopped, self.held = True, ''
            return text[: min(complete)[1]]
        most = max(map(len, self.stops)) - 1
        sizes = range(min(most, len(text)), 0, -1)
        kept = next((size for size in sizes if any(stop.startswith(text[-size:]) for stop in self.stops)), 0)
        self.held = text[len(text) - kept :]
        return text[: len(text) - kept]


class BytePieces:
    """Text whose bytes are those of its tokens, one after another."""

    def __init__(self, texts: Texts):
        self.texts, self.decoder = texts, codecs.getincrementaldecoder('utf-8')('replace')

    def push(self, token: int) -> str:
        texts = self.texts
        if token in texts.hidden:
            return ''
        return self.decoder.decode(texts.bytes.get(token, b''))  # pyright: ignore[reportOptionalMemberAccess]

    def finish(self) -> str:
        return self.decoder.decode(b'', True)


class WindowPieces:
    """Text of any tokenizer, by decoding a few tokens again with the one before them.

    The token before decides whether a space comes first. A run of single bytes becomes text as a whole: SentencePiece
    decodes it to U+FFFD if any of it is not UTF-8.
    """

    def __init__(self, texts: Texts):
        self.texts, self.before, self.window, self.all, self.written = texts, [], [], [], []

    def push(self, token: int) -> str:
        if token in self.texts.hidden or token not in self.texts.names:
            return ''
        self.all.append(token)
        self.window.append(token)
        if BYTE_TOKEN.fullmatch(self.texts.names.get(token, '')):
            return ''
        old, new = self.decode(self.before), self.decode(self.before + self.window)
        if not new.startswith(old) or new.endswith('\ufffd'):
            return ''
        self.before, self.window = self.window[-1:], []
        self.written.append(new[len(old) :])
        return self.written[-1]

    def finish(self) -> str:
        """Returns what the pieces lack of the whole text."""
        whole, written = self.decode(self.all), ''.join(self.written)
        return whole[len(written) :] if whole.startswith(written) else ''

    def decode(self, tokens: Sequence[int]) -> str:
        return self.texts.tokenizer.decode(list(tokens), skip_special_tokens=False)
