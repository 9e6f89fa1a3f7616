"""Text as tokens: byte-level BPE or characters, documents joined into one stream, and rows cut from it."""

import collections
import hashlib
import itertools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from jaxtyping import Integer
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from research.data.dataset import DataSet
from research.errors import UserError, choose

END = '<|endoftext|>'  # separates documents; its id is 0
BYTE, SPACE = re.compile(r'<0x[0-9A-Fa-f]{2}>'), '\u2581'  # SentencePiece: a single byte; the mark of a space
UNKNOWN = '\ufffd'  # replaces characters outside the vocabulary of a character tokenizer


def read_documents(data: DataSet) -> dict[str, list[str]]:
    """Reads {split: texts of its rows} without blank texts.

    Copies of a text are left out across all splits, because they would be memorized.

    Raises:
      UserError: for a row whose 'text' is not a string.
    """
    documents, seen = {}, set()
    for split in data.splits:
        documents[split], copies = [], 0
        rows = data.source(split)
        for number, row in enumerate(rows):
            if not isinstance(row.get('text'), str):
                raise UserError(f'{rows.where(number)}: the text is {row.get("text")!r:.40}, not a string')
            key = hashlib.sha256(row['text'].encode('utf-8', 'surrogatepass')).digest()
            if row['text'].strip() and key not in seen:
                documents[split].append(row['text'])
            copies += key in seen
            seen.add(key)
        if copies:
            logging.info('%s: %d of %d texts are copies of an earlier one and are left out', split, copies, len(rows))
    return documents


def describe_documents(corpus: str, documents: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Describes a corpus as JSON: name, hash, and documents and bytes of each split."""
    digest = hashlib.sha256()
    for split, texts in documents.items():
        for text in texts:
            digest.update(f'{split}\0{text}\0'.encode('utf-8', 'surrogatepass'))
    return {
        'corpus': corpus,
        'sha256': digest.hexdigest(),
        'documents': {split: len(texts) for split, texts in documents.items()},
        'bytes': {
            split: sum(len(text.encode('utf-8', 'surrogatepass')) for text in texts)
            for split, texts in documents.items()
        },
    }


def make_tokenizer(kind: str, documents: Sequence[str], vocabulary: int, special: Sequence[str] = ()) -> Tokenizer:
    """Trains a tokenizer, 'bpe' or 'character', on documents; see the two functions below."""
    kinds = {'bpe': train_tokenizer, 'character': character_tokenizer}
    return choose(kind, kinds, 'config.task.tokenizer')(documents, vocabulary, special)


def train_tokenizer(documents: Iterable[str], vocabulary: int, special: Sequence[str] = ()) -> Tokenizer:
    """Trains a byte-level BPE of exactly `vocabulary` tokens: END, `special`, 256 bytes, and merges.

    Special tokens have the ids 0, 1, ... in this order and are never parsed from a text. Any text can be encoded
    without loss. Merges never cross GPT-2's boundaries between words, numbers, punctuation and runs of white space
    (Radford et al. 2019, section 2.2).

    Raises:
      UserError: if the vocabulary is too small, or the documents cannot fill it.
    """
    least = 257 + len(special)
    if vocabulary < least:
        raise UserError(f'config.task.vocabulary={vocabulary}: the minimum is {least}: 256 bytes and special tokens')
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, *special],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() < vocabulary:
        raise UserError(
            f'the training texts give only {tokenizer.get_vocab_size()} tokens, config.task.vocabulary is '
            f'{vocabulary}: lower it, or take more text'
        )
    return tokenizer


def character_tokenizer(documents: Iterable[str], vocabulary: int, special: Sequence[str] = ()) -> Tokenizer:
    """A tokenizer of characters: END, `special`, `UNKNOWN`, and the most frequent characters.

    Characters outside `vocabulary` become `UNKNOWN`, so encoding may lose text.

    Raises:
      UserError: if the documents have too few characters to fill the vocabulary.
    """
    counts = collections.Counter(itertools.chain.from_iterable(documents))
    counts.pop(UNKNOWN, None)
    given = [END, *special, UNKNOWN]
    if not len(given) < vocabulary <= len(given) + len(counts):
        raise UserError(
            f'config.task.vocabulary={vocabulary}: the training texts have {len(counts)} characters, so that '
            f'{len(given) + 1} to {len(given) + len(counts)} tokens are possible, {len(given)} of them special'
        )
    commonest = sorted(counts, key=lambda character: (-counts[character], character))
    tokens = given + sorted(commonest[: vocabulary - len(given)])
    vocabulary_ids = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary_ids, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r'[\s\S]'), 'isolated')
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(given[:-1])
    return tokenizer


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokenizes a text; END or another special token written in it is ordinary text.

    Raises:
      UserError: for lone surrogates, which UTF-8 cannot encode.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f'the text has half of a character at position {error.start}: {error.reason}') from None
    tokenizer.encode_special_tokens = True  # stored and pickled tokenizers lose this setting
    ids, marks = tokenizer.encode(text, add_special_tokens=False).ids, marks_in_text(tokenizer)
    return [marks.get(index, index) for index in ids] if marks else ids


def marks_in_text(tokenizer: Tokenizer) -> dict[int, int]:
    """Maps special tokens to the unknown token if they are pieces of the model itself (T5).

    Such a tokenizer parses them from a text regardless of its settings; there they count as unknown.
    """
    unknown = tokenizer.token_to_id('<unk>')
    if unknown is None or not isinstance(tokenizer.model, models.Unigram):
        return {}
    return dict.fromkeys(tokenizer.get_added_tokens_decoder(), unknown)


def decode_text(tokenizer: Tokenizer, tokens: Iterable[int]) -> str:
    """Decodes tokens for a person: special tokens by name, incomplete characters as U+FFFD."""
    return tokenizer.decode([int(token) for token in tokens], skip_special_tokens=False)


def end_of(tokenizer: Tokenizer) -> int:
    """The id of END; raises `UserError` if the tokenizer has no such token."""
    end = tokenizer.token_to_id(END)
    if end is None:
        raise UserError(f'the tokenizer has no token {END}, which separates documents: add it as a special token')
    return end


def begin_of(tokenizer: Tokenizer) -> list[int]:
    """The tokens that a tokenizer puts before every text: <s> for Llama, none for GPT-2."""
    whole, plain = (tokenizer.encode('a', add_special_tokens=special).ids for special in (True, False))
    starts = range(len(whole) - len(plain) + 1)
    return next((whole[:start] for start in starts if whole[start : start + len(plain)] == plain), [])


def encode_documents(
    tokenizer: Tokenizer, documents: Sequence[str], end: int | None = None, begin: Sequence[int] = ()
) -> Integer[np.ndarray, 'tokens']:
    """Encodes all documents as one stream, each between `begin` and `end` (None: END); uint16 if ids fit."""
    tokenizer.encode_special_tokens = True
    dtype = np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.int32
    closing = np.array([end_of(tokenizer) if end is None else end], dtype)
    parts, marks = [], marks_in_text(tokenizer)
    for start in range(0, len(documents), 64):  # small groups, because encodings need far more memory than ids
        group = list(documents[start : start + 64])
        for encoding in tokenizer.encode_batch_fast(group, add_special_tokens=False):
            ids = [marks.get(index, index) for index in encoding.ids] if marks else encoding.ids
            parts += [np.array([*begin, *ids], dtype), closing]
    return np.concatenate(parts) if parts else closing[:0]


def bytes_of_tokens(tokenizer: Tokenizer) -> Integer[np.ndarray, 'vocabulary']:
    """Bytes of text per token, int32; 0 for END and special tokens."""
    sizes = np.zeros(tokenizer.get_vocab_size(), np.int32)
    special = tokenizer.get_added_tokens_decoder()
    for token, index in tokenizer.get_vocab().items():
        if index not in special:
            sizes[index] = bytes_of_token(tokenizer.model, token)
    return sizes


def bytes_of_token(model: Any, token: str) -> int:
    """Bytes of text that a token represents."""
    if getattr(model, 'byte_fallback', False):  # SentencePiece: characters, a mark for spaces, and single bytes
        return 1 if BYTE.fullmatch(token) else len(token.replace(SPACE, ' ').encode())
    return len(token) if isinstance(model, models.BPE) else len(token.encode())  # byte-level: a character is a byte


class Blocks(Sequence):
    """Rows {'tokens'} of `length` + 1 tokens of a stream; consecutive rows share one token.

    Every token except the first is predicted once; a remainder shorter than a row is dropped. `stride` sets the
    distance between rows; with stride 1, a shuffled epoch samples crops at random positions. With `overlap` 0, rows
    have `length` tokens and share none.
    """

    def __init__(self, stream: Integer[np.ndarray, 'tokens'], length: int, stride: int = 0, overlap: int = 1):
        self.stream, self.size, self.stride = stream, length + overlap, stride or length

    def __len__(self) -> int:
        return max(0, (len(self.stream) - self.size) // self.stride + 1)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start = index * self.stride
        return {'tokens': np.asarray(self.stream[start : start + self.size], np.int32)}


def save_array(path: epath.Path, array: np.ndarray) -> None:
    """Writes a .npy file to any kind of path."""
    with path.open('wb') as file:
        np.save(file, array)


def load_array(path: epath.Path) -> np.ndarray:
    """Reads a .npy file; local files are memory-mapped, so only the rows in use take memory."""
    if os.path.exists(local := os.fspath(path)):
        return np.load(local, mmap_mode='r')
    with path.open('rb') as file:
        return np.load(file)
