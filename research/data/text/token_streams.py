"""Prepares a corpus for text tasks: a tokenizer, each split as one token stream, and token counts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Integer
from tokenizers import Tokenizer

from research.data.dataset import DataSet
from research.data.text.corpus import (
    UNKNOWN,
    bytes_of_tokens,
    describe_documents,
    encode_documents,
    encode_text,
    load_array,
    make_tokenizer,
    read_documents,
    save_array,
)
from research.errors import UserError, nearest


class CorpusStats(NamedTuple):
    """Stored statistics of the training split: tokenizer, and count and bytes of each token."""

    tokenizer: Tokenizer
    counts: np.ndarray
    bytes: np.ndarray


def store_streams(
    data: DataSet,
    folder: epath.Path,
    tokenizer_kind: str,
    vocabulary: int,
    min_tokens: int,
    special: Sequence[str] = (),
    tokenizer: Tokenizer | None = None,
    end: int | None = None,
    begin: Sequence[int] = (),
) -> None:
    """Trains a tokenizer on the training split and stores every split as one stream of its tokens.

    Writes tokenizer.json, <split>.npy, counts.npy and bytes.npy (of each token) and corpus.json (source, hash and sizes
    of the text).

    Args:
      data: rows with 'text'; there may be no test split.
      folder: output folder.
      tokenizer_kind, vocabulary, special: as in `make_tokenizer`.
      min_tokens: tokens of one row.
      tokenizer: an existing tokenizer; None uses that of the data set, or trains one.
      end: the token that follows each document; None: END.
      begin: tokens before each document.

    Raises:
      UserError: if a split is too small for one row, or the tokenizer settings are invalid.
    """
    splits = read_documents(data)
    if tokenizer is None and data.tokenizer and not special:
        tokenizer = data.tokenizer(vocabulary)
    elif tokenizer is None:
        tokenizer = make_tokenizer(tokenizer_kind, splits['train'], vocabulary, special)
    assert tokenizer is not None
    vocabulary = max(vocabulary, tokenizer.get_vocab_size())
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for split, documents in splits.items():
        stream = encode_documents(tokenizer, documents, end, begin)
        if len(stream) < min_tokens:
            raise UserError(
                f'the {split} split has {len(stream)} tokens, too few for one row of {min_tokens}: take more text, '
                'or a smaller config.task.length'
            )
        save_array(folder / f'{split}.npy', stream)
        sizes[split] = len(stream)
        if split == 'train':
            save_array(folder / 'counts.npy', np.bincount(stream, minlength=vocabulary))
    save_array(folder / 'bytes.npy', bytes_of_tokens(tokenizer))
    (folder / 'tokenizer.json').write_text(tokenizer.to_str())
    corpus = describe_documents(data.about, splits)
    (folder / 'corpus.json').write_text(json.dumps({**corpus, 'tokens': sizes}, indent=2))


def read_stats(folder: epath.Path, vocabulary: int) -> CorpusStats:
    """Reads the stored statistics, for a model whose embedding has `vocabulary` rows.

    Raises:
      UserError: if the tokenizer has ids beyond the embedding.
    """
    tokenizer = Tokenizer.from_str((folder / 'tokenizer.json').read_text())
    if (count := tokenizer.get_vocab_size()) > vocabulary:
        raise UserError(
            f'{folder}: the tokenizer has ids up to {count - 1}, beyond the embedding of {vocabulary} tokens '
            '(config.task.vocabulary): prepare in a new folder, or give the vocabulary it was made for'
        )
    return CorpusStats(tokenizer, load_array(folder / 'counts.npy'), load_array(folder / 'bytes.npy'))


def read_stream(folder: epath.Path, split: str) -> Integer[np.ndarray, 'tokens']:
    """Reads the stream of a split.

    Raises:
      UserError: if the corpus has no such split.
    """
    if not (file := folder / f'{split}.npy').exists():
        splits = json.loads((folder / 'corpus.json').read_text())['tokens']
        raise UserError(f'split: this corpus has no {split!r}; {nearest(split, splits)}')
    return load_array(file)


def request_text(raw: Mapping[str, Any], purpose: str) -> str:
    """Validates the text of a request; raises UserError if it is missing or empty."""
    text = raw.get('text')
    if not isinstance(text, str):
        raise UserError("the request has no 'text', or it is not a string")
    if not text:
        raise UserError(f"the request's 'text' is empty: give at least one character {purpose}")
    return text


def request_tokens(stats: CorpusStats, text: str, max_tokens: int, advice: str) -> list[int]:
    """Tokenizes a request.

    Raises:
      UserError: for more than `max_tokens` tokens, with `advice`, or a character outside the vocabulary.
    """
    limit = max_tokens * int(stats.bytes.max())
    if len(text) > limit:  # check before tokenizing a possibly huge text
        raise UserError(f"the request's 'text' has {len(text)} characters; {max_tokens} tokens hold {limit}")
    tokens = encode_text(stats.tokenizer, text)
    unknown = stats.tokenizer.token_to_id(UNKNOWN)
    if unknown is not None and unknown in tokens:
        character = text[tokens.index(unknown)]
        raise UserError(f"the request's 'text' has {character!r}, a character that the training texts do not have")
    if len(tokens) > max_tokens:
        raise UserError(f"the request's 'text' has {len(tokens)} tokens; {advice}: shorten it")
    return tokens


def marked_tokens(
    stats: CorpusStats, parts: Sequence[str | int], max_tokens: int, spaced: bool
) -> list[int]:
    """Tokenizes a request of texts with special token ids between them that mark missing text.

    Args:
      stats: of the corpus.
      parts: texts and ids.
      max_tokens: tokens that the model reads.
      spaced: whether a space before a missing text belongs to it, as in tokenizers whose words begin with a space.

    Raises:
      UserError: as of `request_tokens`.
    """
    tokens, advice = [], f'the model reads {max_tokens}'
    for number, part in enumerate(parts):
        if isinstance(part, int):
            tokens.append(part)
            continue
        text = part.removesuffix(' ') if spaced and number + 1 < len(parts) else part
        tokens += request_tokens(stats, text, max_tokens, advice) if text else []
    if len(tokens) > max_tokens:
        raise UserError(f"the request's 'text' has {len(tokens)} tokens; {advice}: shorten it")
    return tokens
