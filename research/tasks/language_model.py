"""Language modelling: a decoder-only Transformer over byte-level BPE or characters.

A row is a block of `length` + 1 tokens from a stream of documents, or several documents packed into one row. A request
is {'text'}, a prompt to continue.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from etils import epath

from research.core.task import Decoding, Host, Input, Metric, Task
from research.data.dataset import open_dataset
from research.data.text.corpus import Blocks, begin_of, end_of
from research.data.text.packing import Packed
from research.data.text.python_lines import python_lines
from research.data.text.text_rows import TextRows, plain_text, row_prompt
from research.data.text.token_streams import read_stats, read_stream, store_streams
from research.errors import Count, NonNegative, PositiveInt, Range, UserError, task_settings
from research.interop.pretrained import published_tokenizer, read_description, read_ends, read_shape, stream_tokenizer

MODELS = 'tokens'  # builder module in research/models/


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `config.task`; lengths are in tokens."""

    tokenizer: Literal['bpe', 'character'] = 'bpe'
    vocabulary: PositiveInt = 2048
    length: PositiveInt = 128  # tokens per row, and the maximum context
    documents: Literal['joined', 'packed'] = 'joined'  # 'packed': attention stays inside a document
    stride: Count = 0  # tokens between starts of training rows in joined documents; 0: length; 1: random crops
    objective: Literal['causal', 'prefix'] = 'causal'  # 'prefix': sees a prefix whole, predicts the rest
    max_new_tokens: PositiveInt = 64  # maximum length of a continuation
    temperature: NonNegative = 0.8  # 0: greedy
    top_k: Count = 0  # 0: off
    top_p: Annotated[float, Range(0, 1, above=True)] = 0.95  # 1: off
    prompts: tuple[str, ...] = ()  # prompts continued in the report; (): the first rows of the split
    check: Literal['', 'python'] = ''  # 'python': fraction of generated lines that Python's tokenize accepts
    check_count: PositiveInt = 32  # number of continuations checked

    def __post_init__(self):
        if self.stride > self.length:
            raise UserError(f'config.task.stride must be at most length={self.length}, got {self.stride}')
        if self.documents == 'packed' and (self.stride or self.objective == 'prefix'):
            raise UserError("config.task.documents='packed' requires stride=0 and objective='causal'")
        if self.objective == 'prefix' and self.length < 2:
            raise UserError("config.task.objective='prefix' requires length >= 2")
        if self.max_new_tokens >= self.length:
            raise UserError(
                f'config.task.max_new_tokens={self.max_new_tokens} leaves no room for a prompt in '
                f'config.task.length={self.length}'
            )


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer and stores each split as a stream of tokens; see `store_streams`."""
    settings, data = task_settings(Settings, config), open_dataset(config.data, ('text',))
    tokenizer = stream_tokenizer(config.model, folder)  # None: no pretrained weights
    store_streams(
        data, folder, settings.tokenizer, settings.vocabulary, settings.length + 1, tokenizer=tokenizer,
        begin=begin_of(tokenizer) if tokenizer else (),
    )


def read_rows(config: Any, settings: Settings, folder: epath.Path) -> TextRows:
    """Builds the row encoder from the stored tokenizer."""
    shape = read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.length)
    stats = read_stats(folder, shape.vocabulary)
    return TextRows(stats, settings.length, settings.max_new_tokens, settings.objective == 'prefix')


def make_source(settings: Settings, folder: epath.Path, end: int) -> Callable[[str], Sequence]:
    """Builds `source`: blocks of a split's token stream, or its documents packed into rows."""

    @functools.cache  # packing reads the whole split
    def source(split: str) -> Sequence:
        stream = read_stream(folder, split)
        if settings.documents == 'packed':
            return Packed(stream, end, settings.length)
        return Blocks(stream, settings.length, settings.stride if split == 'train' else 0)

    return source


def make_finalize(rows: TextRows, settings: Settings) -> Callable | None:
    """Builds the check of generated text, with the corpus' own continuations as reference; None if it is off."""

    def finalize(pairs: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Metric]:
        written, reference = [], []
        for raw, decoded in itertools.islice(pairs, settings.check_count):
            start = int(row_prompt({'length': np.int32(settings.length), **raw}))
            written.append(decoded['text'])
            reference.append(plain_text(rows.stats.tokenizer, raw['tokens'][start : start + settings.max_new_tokens]))
        (good, lines), (reference_good, reference_lines) = python_lines(written), python_lines(reference)
        about = f"Python's tokenize accepts {good} of {lines} generated lines, {len(written)} texts"
        reference_about = f'continuations from the corpus: {reference_good} of {reference_lines}'
        shares = good / max(lines, 1), reference_good / max(reference_lines, 1)
        # The corpus score is a reference, not a bound: no direction is better.
        return {'python_lines': Metric(*shares, '', about, reference_about)}

    return {'python': finalize, '': None}[settings.check]


def host_of(rows: TextRows) -> Host:
    """Builds the host part from the row encoder."""
    limit = rows.prompt_limit
    about = f'a prompt of at most {limit} tokens'
    inputs = {'text': Input('text', limit=limit * int(rows.stats.bytes.max()), about=about)}
    return Host(inputs, rows.encode, rows.decode)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    return host_of(read_rows(config, task_settings(Settings, config), folder))


def publish(config: Any, folder: epath.Path, params: Any) -> Any:
    """Describes the trained model for `interop.publish.write_folder`."""
    from research.interop.publish import Published, one_or_all

    settings = task_settings(Settings, config)
    if settings.objective == 'prefix':
        raise UserError("config.task.objective='prefix': decoders of the hub are causal, so this model has no family")
    shape = read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.length)
    weights, stored = read_description(config.model, folder) or {}, read_stats(folder, shape.vocabulary).tokenizer
    ids: dict[str, Any] = {'eos_token_id': one_or_all(read_ends(config.model, folder, end_of(stored)))}
    if begin := begin_of(stored):
        ids['bos_token_id'] = begin[0]
    tokenizer = published_tokenizer(weights, stored)
    return Published('decoder', shape, params, weights, tokenizer, length=settings.length, ids=ids)


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model` gives the shape of the Transformer or names pretrained weights.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families import tokens
    from research.models.tokens import decoder, generate_text

    settings = task_settings(Settings, config)
    open_dataset(config.data, ('text',))  # an unusable data section fails here, before anything compiles
    model = decoder(config.model, folder, settings.vocabulary, settings.length)
    rows = read_rows(config, settings, folder)
    end = end_of(rows.stats.tokenizer)
    generate = tokens.continue_text(
        generate_text(model, read_ends(config.model, folder, end), settings.length),
        Decoding(settings.max_new_tokens, settings.temperature, settings.top_k, settings.top_p),
        settings.length, row_prompt, rows.prefix, rows.stats.tokenizer,
    )  # fmt: skip
    return tokens.token_prediction(
        host_of(rows), make_source(settings, folder, end), model, rows.stats.counts,
        sizes=rows.stats.bytes,
        predict=tokens.predict_text(generate),
        claim=tokens.claim_continuation,
        generate=generate,
        finalize=make_finalize(rows, settings),
        finalize_count=settings.check_count,
        examples=[{'text': text} for text in settings.prompts],
        describe=rows.describe,
    )  # fmt: skip
