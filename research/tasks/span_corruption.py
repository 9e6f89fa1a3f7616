"""Span corruption, as in T5 (Raffel et al. 2020, arXiv:1910.10683).

A row is a block of `length` tokens from a stream of documents. In the source, spans are replaced by sentinels; the
target lists each sentinel followed by its span. A request is {'text'} with <extra_id_0>, <extra_id_1>, ... in place of
the missing spans. With `config.model.weights` the tokenizer, sentinels, end and start tokens are those of the weights.
"""

import functools
from typing import Annotated, Any, Literal, NamedTuple

from etils import epath

from research.core.task import Decoding, Host, Input, Task
from research.data.dataset import open_dataset
from research.data.text.corpus import Blocks
from research.data.text.span_rows import SpanRows, SpanSizes, check_sentinels
from research.data.text.token_streams import read_stats, read_stream, store_streams
from research.errors import Count, NonNegative, OpenFraction, PositiveInt, Range, task_settings
from research.interop import pretrained

MODELS = 'tokens'  # builder module in research/models/


class Settings(NamedTuple):
    """Settings of `config.task`; lengths are in tokens."""

    tokenizer: Literal['bpe', 'character'] = 'bpe'
    vocabulary: PositiveInt = 2048
    length: Annotated[int, Range(2)] = 128  # tokens per row before corruption
    density: OpenFraction = 0.15  # fraction of tokens removed
    mean_span: Annotated[float, Range(1)] = 3.0  # mean tokens per span
    temperature: NonNegative = 0.0  # of sampled answers; 0: greedy
    top_k: Count = 0  # 0: off
    top_p: Annotated[float, Range(0, 1, above=True)] = 1.0  # 1: off
    prompts: tuple[str, ...] = ()  # texts with sentinels answered in the report; (): the first rows of the split

    @property
    def sizes(self) -> SpanSizes:
        """Sizes of sources and targets."""
        return SpanSizes(self.length, self.density, self.mean_span)


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer, or takes that of the weights, and stores each split as a stream of tokens."""
    settings, end = task_settings(Settings, config), None
    tokenizer = pretrained.store(config.model, folder, 'encoder-decoder')
    sizes = settings.sizes
    if tokenizer is not None:
        check_sentinels(tokenizer, sizes, config.model['weights'])
        _, end = pretrained.read_marks(config.model, folder)  # pyright: ignore[reportGeneralTypeIssues]
        # Fails if the weights have fewer positions.
        pretrained.read_shape(config.model, folder, vocabulary=1, length=sizes.positions)
    store_streams(
        open_dataset(config.data, ('text',)), folder, settings.tokenizer, settings.vocabulary, settings.length,
        sizes.sentinels, tokenizer, end,
    )  # fmt: skip


def read_rows(config: Any, settings: Settings, folder: epath.Path) -> SpanRows:
    """Builds the row encoder from the stored tokenizer."""
    sizes = settings.sizes
    shape = pretrained.read_shape(config.model, folder, vocabulary=settings.vocabulary, length=sizes.positions)
    marks = pretrained.read_marks(config.model, folder)
    return SpanRows(read_stats(folder, shape.vocabulary), sizes, marks, settings.tokenizer == 'bpe')


def host_of(rows: SpanRows) -> Host:
    """Builds the host part from the row encoder."""
    sizes, limit = rows.sizes, rows.sizes.source_length - 1
    about = (
        f'a text of at most {limit} tokens with {sizes.sentinels[0]} to {sizes.sentinels[sizes.spans - 1]} in '
        'place of missing spans'
    )
    characters = limit * max(int(rows.stats.bytes.max()), len(sizes.sentinels[-1]))
    return Host({'text': Input('text', limit=characters, about=about)}, rows.encode, rows.decode)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    return host_of(read_rows(config, task_settings(Settings, config), folder))


def publish(config: Any, folder: epath.Path, params: Any) -> Any:
    """Describes the trained model for `interop.publish.write_folder`."""
    from research.interop.publish import Published, one_or_all

    settings = task_settings(Settings, config)
    sizes, rows = settings.sizes, read_rows(config, settings, folder)
    shape = pretrained.read_shape(config.model, folder, vocabulary=settings.vocabulary, length=sizes.positions)
    ends = pretrained.read_ends(config.model, folder, rows.end)
    ids = {'eos_token_id': one_or_all(ends), 'decoder_start_token_id': rows.start}
    weights = pretrained.read_description(config.model, folder) or {}
    return Published(
        'encoder-decoder', shape, params, weights, rows.stats.tokenizer, length=sizes.positions, ids=ids
    )


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model` gives the shape of encoder and decoder or names pretrained weights.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families import tokens
    from research.models.tokens import encoder_decoder, generate_target

    settings = task_settings(Settings, config)
    open_dataset(config.data, ('text',))  # an unusable data section fails here, before anything compiles
    sizes = settings.sizes
    model = encoder_decoder(config.model, folder, vocabulary=settings.vocabulary, length=sizes.positions)
    rows = read_rows(config, settings, folder)
    generate = tokens.write_target(
        generate_target(model, rows.start, pretrained.read_ends(config.model, folder, rows.end), sizes.positions),
        Decoding(sizes.target_length, settings.temperature, settings.top_k, settings.top_p),
        rows.start, sizes.source_length, rows.stats.tokenizer,
    )  # fmt: skip
    return tokens.token_prediction(
        host_of(rows), functools.cache(lambda split: Blocks(read_stream(folder, split), settings.length, overlap=0)),
        model, rows.target_counts(), token_name='target token',
        predict=tokens.predict_text(generate),
        claim=tokens.make_claim_target(rows.start, sizes.source_length, sizes.target_length),
        generate=generate,
        examples=[{'text': text} for text in settings.prompts],
        describe=rows.describe,
    )  # fmt: skip
