"""Guessing hidden tokens of text from both sides: BERT's pre-training (Devlin et al. 2019, arXiv:1810.04805).

A row is a block of `length` tokens of a stream of documents; a request is {'text'} with [MASK] where a token
is to be guessed. With `config.model.weights` the tokenizer is that of the weights, a row begins with its [CLS] and
ends with its [SEP], which also stands between documents (as in FULL-SENTENCES of Liu et al. 2019, but a row may begin
inside a sentence), and all tokens are of type 0. The head is theirs, or made anew where they have none.

BERT's second objective, the next sentence, is left out: Liu et al. 2019 (arXiv:1907.11692,
section 4.2) found no use in it.
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
from research.errors import UserError, task_settings
from research.interop import pretrained

MODELS = 'tokens'  # the module of research/models/ that builds them


class Settings(NamedTuple):
    """Settings of `config.task`; lengths are in tokens."""

    tokenizer: Literal['bpe', 'character'] = 'bpe'
    vocabulary: int = 2048
    length: int = 128  # tokens of a row, and the most positions the model reads
    rate: float = 0.15  # of the tokens of a row that are to be guessed
    mask_share: float = 0.8  # of those, how many are shown as [MASK]
    random_share: float = 0.1  # of those, how many are shown as a random token; the rest is shown as it is
    whole_words: bool = False  # a word is hidden whole or not at all
    top: int = 5  # candidates in an answer
    prompts: tuple[str, ...] = ()  # texts with [MASK] answered in the report; none: the first rows of the split

    def check(self) -> 'Settings':
        """The settings; raises a `UserError` for impossible values."""
        for name in ('length', 'top'):
            if getattr(self, name) < 1:
                raise UserError(f'config.task.{name} must be above zero, got {getattr(self, name)}')
        if not 0 < self.rate < 1:
            raise UserError(f'config.task.rate must be between 0 and 1, got {self.rate}')
        if min(self.mask_share, self.random_share) < 0 or self.mask_share + self.random_share > 1 + 1e-9:
            raise UserError(
                f'config.task.mask_share={self.mask_share} and random_share={self.random_share}: shares are zero '
                'or more and at most 1 together'
            )
        if self.top > self.vocabulary:
            raise UserError(f'config.task.top={self.top} is more than the vocabulary of {self.vocabulary}')
        return self


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer, or takes that of the weights, and stores every split as one stream of its tokens."""
    settings = task_settings(Settings, config)
    tokenizer, end, length = pretrained.store(config.model, folder, 'encoder'), None, settings.length
    if tokenizer is not None:
        marks = marks_of(tokenizer, config.model['weights'])
        end, length = marks.end[0], block_length(settings.length, marks)
        pretrained.read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.length)
    data = open_dataset(config.data, ('text',))
    store_streams(data, folder, settings.tokenizer, settings.vocabulary, length, (MASK,), tokenizer, end)


def read_rows(config: Any, settings: Settings, folder: epath.Path) -> MaskedRows:
    """What encodes rows, with the tokenizer that was stored."""
    shape = pretrained.read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.length)
    stats = read_stats(folder, shape.vocabulary)
    marks = marks_of(stats.tokenizer, config.model.get('weights', ''))
    count, shares = max(1, round(settings.rate * settings.length)), (settings.mask_share, settings.random_share)
    spaced = settings.tokenizer == 'bpe' or marks.around > 0
    return MaskedRows(stats, Masking(settings.length, count, shares, settings.whole_words, spaced), marks)


def host_of(rows: MaskedRows) -> Host:
    """What answers requests, from what encodes them."""
    about = f'a text of at most {rows.block} tokens with 1 to {rows.masking.count} {MASK}'
    limit = rows.masking.length * max(int(rows.stats.bytes.max()), len(MASK))
    return Host({'text': Input('text', limit=limit, about=about)}, rows.encode, rows.decode)


def host(config: Any, folder: epath.Path) -> Host:
    """What answers requests on the host."""
    return host_of(read_rows(config, task_settings(Settings, config), folder))


def position_mask(batch: Batch) -> Float[Array, 'batch count']:
    """1.0 for every position of a real row whose token is guessed."""
    return (jnp.arange(batch['positions'].shape[1]) < batch['count'][:, None]) * batch['mask'][:, None]


def make_predict(model: Any, top: int) -> Callable:
    """`predict`: what was read, and the likeliest tokens at each position."""

    def predict(variables, batch, context):
        logits, _ = model.apply(variables, batch, context._replace(train=False))
        probabilities, candidates = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top)
        read = {name: batch[name] for name in ('tokens', 'length', 'positions', 'count')}
        return {**read, 'candidates': candidates, 'probabilities': probabilities}

    return predict


def claim(batch: Batch, outputs: Mapping[str, Array]) -> Batch:
    """The batch with the likeliest tokens as its targets."""
    return {**batch, 'targets': outputs['candidates'][..., 0].astype(jnp.int32)}


def make(config: Any, folder: epath.Path) -> Task:
    """The task; `config.model` is the Transformer's shape, an encoder, or names pretrained weights.

    Raises:
      UserError: for an unknown setting or an impossible value.
    """
    from research.families.tokens import token_prediction
    from research.models.tokens import encoder

    settings, _ = task_settings(Settings, config), open_dataset(config.data, ('text',))  # both checked
    model = encoder(config.model, folder, settings.vocabulary, settings.length)
    rows = read_rows(config, settings, folder)
    source = functools.cache(lambda split: Blocks(read_stream(folder, split), rows.block, overlap=0))
    return token_prediction(
        host_of(rows), source, model, rows.stats.counts, what='hidden token', mask_of=position_mask,
        predict=make_predict(model, settings.top),
        claim=claim,
        examples=[{'text': text} for text in settings.prompts],
        describe=rows.describe,
    )  # fmt: skip
