"""Masked language modelling, as in BERT (Devlin et al. 2019, arXiv:1810.04805).

A row is a block of `length` tokens from a stream of documents. A request is {'text'} with [MASK] in place of each token
to predict. With `config.model.weights` the tokenizer of the weights is used: a row starts with its [CLS] and ends with
its [SEP], which also separates documents (FULL-SENTENCES of Liu et al. 2019, except that a row may start
mid-sentence), and all token types are 0. The head is loaded too, or initialized if the weights have none.

Next-sentence prediction is left out: Liu et al. 2019 (arXiv:1907.11692, section 4.2) found that it does not help.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from jaxtyping import Array, Float

from research.core.task import Batch, Host, Input, Task
from research.data.dataset import open_dataset
from research.data.text.corpus import Blocks
from research.data.text.masked_rows import MASK, MaskedRows, Masking, block_length, marks_of
from research.data.text.token_streams import read_stats, read_stream, store_streams
from research.errors import Fraction, OpenFraction, PositiveInt, UserError, task_settings
from research.interop import pretrained

MODELS = 'tokens'  # builder module in research/models/


class Settings(NamedTuple):
    """Settings of `config.task`; lengths are in tokens."""

    tokenizer: Literal['bpe', 'character'] = 'bpe'
    vocabulary: PositiveInt = 2048
    length: PositiveInt = 128  # tokens per row, and the maximum context
    rate: OpenFraction = 0.15  # fraction of tokens to predict
    mask_share: Fraction = 0.8  # fraction of those replaced by [MASK]
    random_share: Fraction = 0.1  # fraction of those replaced by a random token; the rest stay unchanged
    whole_words: bool = False  # mask whole words
    top: PositiveInt = 5  # candidates returned per mask
    prompts: tuple[str, ...] = ()  # texts with [MASK] answered in the report; (): the first rows of the split

    def check(self) -> 'Settings':
        """Validates the settings; raises `UserError` for impossible values."""
        if self.mask_share + self.random_share > 1 + 1e-9:
            raise UserError(
                f'config.task.mask_share={self.mask_share} and random_share={self.random_share}: their sum must be at '
                'most 1'
            )
        if self.top > self.vocabulary:
            raise UserError(f'config.task.top={self.top} exceeds the vocabulary of {self.vocabulary}')
        return self


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer, or takes that of the weights, and stores each split as a stream of tokens."""
    settings = task_settings(Settings, config)
    tokenizer, end, length = pretrained.store(config.model, folder, 'encoder'), None, settings.length
    if tokenizer is not None:
        marks = marks_of(tokenizer, config.model['weights'])
        end, length = marks.end[0], block_length(settings.length, marks)
        pretrained.read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.length)
    data = open_dataset(config.data, ('text',))
    store_streams(data, folder, settings.tokenizer, settings.vocabulary, length, (MASK,), tokenizer, end)


def read_rows(config: Any, settings: Settings, folder: epath.Path) -> MaskedRows:
    """Builds the row encoder from the stored tokenizer."""
    shape = pretrained.read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.length)
    stats = read_stats(folder, shape.vocabulary)
    marks = marks_of(stats.tokenizer, config.model.get('weights', ''))
    count, shares = max(1, round(settings.rate * settings.length)), (settings.mask_share, settings.random_share)
    spaced = settings.tokenizer == 'bpe' or marks.around > 0
    return MaskedRows(stats, Masking(settings.length, count, shares, settings.whole_words, spaced), marks)


def host_of(rows: MaskedRows) -> Host:
    """Builds the host part from the row encoder."""
    about = f'a text of at most {rows.block} tokens with 1 to {rows.masking.count} {MASK}'
    limit = rows.masking.length * max(int(rows.stats.bytes.max()), len(MASK))
    return Host({'text': Input('text', limit=limit, about=about)}, rows.encode, rows.decode)


def host(config: Any, folder: epath.Path) -> Host:
    """Builds the host part of the task."""
    return host_of(read_rows(config, task_settings(Settings, config), folder))


def publish(config: Any, folder: epath.Path, params: Any) -> Any:
    """Describes the trained model for `interop.publish.write_folder`."""
    from research.interop.publish import Published
    from research.models.tokens import encoder_shape

    settings = task_settings(Settings, config)
    shape = encoder_shape(config.model, folder, settings.vocabulary, settings.length)
    weights = pretrained.read_description(config.model, folder) or {}
    tokenizer = read_stats(folder, shape.vocabulary).tokenizer
    return Published('masked', shape, params, weights, tokenizer, length=settings.length)


def position_mask(batch: Batch) -> Float[Array, 'batch count']:
    """Returns 1.0 for each position whose token is predicted, in real rows only."""
    return (jnp.arange(batch['positions'].shape[1]) < batch['count'][:, None]) * batch['mask'][:, None]


def make_predict(model: Any, top: int) -> Callable:
    """Builds `predict`: the inputs, and the most probable tokens at each position."""

    def predict(variables, batch, context):
        logits, _ = model.apply(variables, batch, context._replace(train=False))
        probabilities, candidates = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top)
        read = {name: batch[name] for name in ('tokens', 'length', 'positions', 'count')}
        return {**read, 'candidates': candidates, 'probabilities': probabilities}

    return predict


def claim(batch: Batch, outputs: Mapping[str, Array]) -> Batch:
    """Replaces the targets of a batch by the most probable tokens."""
    return {**batch, 'targets': outputs['candidates'][..., 0].astype(jnp.int32)}


def make(config: Any, folder: epath.Path) -> Task:
    """Builds the task; `config.model` gives the shape of the encoder or names pretrained weights.

    Raises:
      UserError: if a setting is unknown or a value impossible.
    """
    from research.families.tokens import token_prediction
    from research.models.tokens import encoder

    settings = task_settings(Settings, config)
    open_dataset(config.data, ('text',))  # an unusable data section fails here, before anything compiles
    model = encoder(config.model, folder, settings.vocabulary, settings.length)
    rows = read_rows(config, settings, folder)
    source = functools.cache(lambda split: Blocks(read_stream(folder, split), rows.block, overlap=0))
    return token_prediction(
        host_of(rows), source, model, rows.stats.counts, token_name='hidden token', mask_of=position_mask,
        predict=make_predict(model, settings.top),
        claim=claim,
        examples=[{'text': text} for text in settings.prompts],
        describe=rows.describe,
    )  # fmt: skip
