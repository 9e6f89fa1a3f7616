"""Guessing hidden tokens of text from both sides: BERT's pre-training (Devlin et al. 2019, arXiv:1810.04805).

A row is a block of `length` tokens of a stream of documents; a request is {'text'} with [MASK] where a token
is to be guessed. With `config.model.weights` the tokenizer is that of the weights, a row begins with its [CLS] and
ends with its [SEP], which also stands between documents (as in FULL-SENTENCES of Liu et al. 2019, but a row may begin
inside a sentence), and all tokens are of type 0. The head is theirs, or made anew where they have none.

BERT's second objective, the next sentence, is left out: Liu et al. 2019 (arXiv:1907.11692,
section 4.2) found no use in it.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Aux, Context, Input, Metric, Task, Variables
from research.data.dataset import open_dataset
from research.data.text.corpus import UNKNOWN, Blocks, decode_text
from research.data.text.corruption import generator_of, mask_tokens
from research.data.text.token_streams import Facts, read_facts, read_stream, request_text, request_tokens, store_streams
from research.data.text.tokens import pretrained_tokens
from research.data.text.words import Words
from research.errors import UserError, unpack
from research.interop.pretrained import make_load, read_shape, store
from research.nn.apply import initialize
from research.nn.transformer import Transformer
from research.ops.losses import softmax_cross_entropy
from research.ops.token_metrics import token_metrics, token_sums, unigrams

MASK = '[MASK]'


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `config.task`; lengths are in tokens."""

    tokenizer: Literal['bpe', 'character'] = 'bpe'
    vocabulary: int = 2048
    length: int = 128  # tokens of a row, and the most positions the model reads
    rate: float = 0.15  # of the tokens of a row that are to be guessed
    mask_share: float = 0.8  # of those, how many are shown as [MASK]
    random_share: float = 0.1  # of those, how many are shown as a random token; the rest is shown as it is
    whole_words: bool = False  # a word is hidden whole or not at all
    top: int = 5  # candidates in an answer
    prompts: tuple = ()  # texts with [MASK] answered in the report; none: the first rows of the split

    def __post_init__(self):
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

    @property
    def count(self) -> int:
        """The most tokens of a row that are guessed."""
        return max(1, round(self.rate * self.length))


def settings_of(config: Any) -> Settings:
    """Returns the checked settings of `config.task`."""
    return unpack(Settings, {key: value for key, value in config.task.items() if key != 'name'}, 'task')


class Marks(NamedTuple):
    """The special tokens of rows."""

    mask: int
    names: tuple[str, ...]  # of the mask, in requests
    begin: tuple[int, ...] = ()  # before every row
    end: tuple[int, ...] = ()  # behind it

    @property
    def around(self) -> int:
        """How many tokens of a row are not of its text."""
        return len(self.begin) + len(self.end)

    def inside(self, tokens: Any) -> Any:
        """Returns the tokens of a row without those before and behind."""
        return tokens[len(self.begin) : len(tokens) - len(self.end)]


def marks_of(tokenizer: Tokenizer, weights: str) -> Marks:
    """Returns the marks of a tokenizer, of the task's own or of `weights`.

    Raises:
      UserError: where the tokenizer of weights has no mask, or nothing to frame a row with.
    """
    if not weights:
        return Marks(tokenizer.token_to_id(MASK), (MASK,))
    known = [name for name in (MASK, '<mask>') if tokenizer.token_to_id(name) is not None]
    if not known:
        raise UserError(
            f'config.model.weights={weights!r}: its tokenizer has no {MASK} or <mask>, so nothing can be hidden: take '
            'weights of a masked model (BERT, RoBERTa, DistilBERT)'
        )
    special = pretrained_tokens(tokenizer, f'config.model.weights={weights!r}')
    names = tuple(dict.fromkeys((known[0], MASK)))
    return Marks(tokenizer.token_to_id(known[0]), names, (special.begin,), (special.end,))


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer, or takes that of the weights, and stores every split as one stream of its tokens."""
    settings = settings_of(config)
    tokenizer, end, length = store(config.model, folder, 'encoder'), None, settings.length
    if tokenizer is not None:
        marks = marks_of(tokenizer, config.model['weights'])
        end, length = marks.end[0], block_length(settings, marks)
        read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.length)  # refuses the length
    corpus = open_dataset(config.data, ('text',))
    store_streams(corpus, folder, settings.tokenizer, settings.vocabulary, length, (MASK,), tokenizer, end)


def block_length(settings: Settings, marks: Marks) -> int:
    """Returns how many tokens of a row are text; a `UserError` where there are none."""
    if settings.length <= marks.around:
        raise UserError(f'config.task.length={settings.length}: {marks.around} tokens of a row are its begin and end')
    return settings.length - marks.around


class Encoder:
    """What a request or row becomes; holds the tokenizer and which tokens are words, and can be pickled."""

    def __init__(self, facts: Facts, settings: Settings, marks: Marks):
        self.facts, self.settings, self.marks = facts, settings, marks
        self.words, self.mask = Words(facts.tokenizer), marks.mask
        unusual = self.words.special.copy()
        if (unknown := facts.tokenizer.token_to_id(UNKNOWN)) is not None:
            unusual[unknown] = True
        self.replacements = np.flatnonzero(~unusual)

    def __call__(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        """Returns 'tokens' [length], 'length', 'positions' [count] asked for, 'count' of them; rows have 'targets'.

        Masks are drawn by `rng`, anew in every epoch; without it they follow from the row itself.

        Raises:
          UserError: for a request that is no text, is empty or too long, or has no [MASK] or too many.
        """
        settings = self.settings
        if 'tokens' not in raw:
            return self.request(request_text(raw, f'and {MASK}'))
        tokens = self.framed(raw['tokens'])
        groups = self.words(tokens)
        if not settings.whole_words:
            groups = np.where(groups < 0, -1, np.arange(len(tokens)))
        masked = mask_tokens(
            tokens, groups, settings.count, self.mask, self.replacements,
            (settings.mask_share, settings.random_share), rng or generator_of(tokens),
        )  # fmt: skip
        row = self.pad(masked.tokens, masked.positions)
        targets = np.zeros(settings.count, np.int32)
        targets[: len(masked.targets)] = masked.targets
        return {**row, 'targets': targets}

    def framed(self, tokens: Any) -> np.ndarray:
        """Returns the tokens of a text as the model reads them."""
        return np.concatenate([self.marks.begin, tokens, self.marks.end]).astype(np.int32)

    def request(self, text: str) -> dict[str, np.ndarray]:
        """Returns a text with masks as arrays. A space before a mask belongs to the word that it hides."""
        settings, parts = self.settings, re.split('|'.join(map(re.escape, self.marks.names)), text)
        asked, most = len(parts) - 1, block_length(settings, self.marks)
        if not 0 < asked <= settings.count:
            raise UserError(f"the request's 'text' has {asked} {MASK}, and 1 to {settings.count} can be guessed")
        advice, tokens = f'the model reads {most}', []
        for number, part in enumerate(parts):
            hides_space = number < asked and (settings.tokenizer == 'bpe' or self.marks.around > 0)
            part = part.removesuffix(' ') if hides_space else part
            tokens += request_tokens(self.facts, part, most, advice) if part else []
            tokens += [self.mask] if number < asked else []
        if len(tokens) > most:
            raise UserError(f"the request's 'text' has {len(tokens)} tokens; {advice}: shorten it")
        tokens = self.framed(tokens)
        return self.pad(tokens, np.flatnonzero(tokens == self.mask))

    def pad(self, tokens: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the fixed shapes."""
        row = {'tokens': np.zeros(self.settings.length, np.int32), 'positions': np.zeros(self.settings.count, np.int32)}
        row['tokens'][: len(tokens)], row['positions'][: len(positions)] = tokens, positions
        return {**row, 'length': np.int32(len(tokens)), 'count': np.int32(len(positions))}


def apply(model: Transformer, variables: Variables, batch: Mapping[str, Any], context: Context) -> jax.Array:
    """Returns the logits at the positions asked for, with dropout in training."""

    def asked(module: Transformer) -> jax.Array:
        features, _ = module.features(batch['tokens'], batch['length'])
        return module.logits(jnp.take_along_axis(features, batch['positions'][..., None], axis=1))

    rngs = {'dropout': context.fold('dropout')} if context.train else None
    return model.clone(train=context.train).apply({'params': variables.params['model']}, rngs=rngs, method=asked)


def asked_mask(batch: Mapping[str, Any]) -> jax.Array:
    """Returns 1.0 for every position that is asked for in a real row, float32 [batch, count]."""
    return (jnp.arange(batch['positions'].shape[1]) < batch['count'][:, None]) * batch['mask'][:, None]


def make_loss(model: Transformer) -> Callable:
    """Returns the loss: the sum of cross-entropies, in nats, over hidden tokens, which are its weight."""

    def loss(variables, batch, context):
        logits, mask = apply(model, variables, batch, context), asked_mask(batch)
        correct = (jnp.argmax(logits, axis=-1) == batch['targets']) * mask
        aux = Aux(jnp.sum(mask), logs={'accuracy': jnp.sum(correct)}, outputs={'logits': logits})
        return jnp.sum(softmax_cross_entropy(logits, batch['targets']) * mask), aux

    return loss


def make_metric_sums(model: Transformer, facts: Facts) -> Callable:
    """Returns `metric_sums`: sums over hidden tokens for the model and for a unigram model of the training split."""
    baseline = unigrams(facts.counts)

    def metric_sums(variables, batch, context):
        logits = apply(model, variables, batch, context._replace(train=False))
        return token_sums(logits, batch['targets'], asked_mask(batch), baseline)

    return metric_sums


def metrics(sums: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """Returns loss, perplexity and accuracy over hidden tokens, beside those of the training split's unigrams."""
    return {name: Metric(*measure) for name, measure in token_metrics(sums, 'hidden token').items()}


def make_predict(model: Transformer, top: int) -> Callable:
    """Returns `predict`: what was read, and the likeliest tokens at each position asked for."""

    def predict(variables, batch, context):
        logits = apply(model, variables, batch, context._replace(train=False))
        probabilities, candidates = jax.lax.top_k(jax.nn.softmax(logits, axis=-1), top)
        read = {name: batch[name] for name in ('tokens', 'length', 'positions', 'count')}
        return {**read, 'candidates': candidates, 'probabilities': probabilities}

    return predict


def decode(tokenizer: Tokenizer, marks: Marks, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns the text as it was read, the text filled with the likeliest tokens, and all candidates."""
    count, tokens = int(outputs['count']), np.array(outputs['tokens'])[: int(outputs['length'])]
    masked = decode_text(tokenizer, marks.inside(tokens))
    tokens[np.asarray(outputs['positions'])[:count]] = np.asarray(outputs['candidates'])[:count, 0]
    candidates = [
        [
            {'token': decode_text(tokenizer, [token]), 'probability': round(float(probability), 4)}
            for token, probability in zip(outputs['candidates'][place], outputs['probabilities'][place], strict=True)
        ]
        for place in range(count)
    ]
    return {'masked': masked, 'text': decode_text(tokenizer, marks.inside(tokens)), 'candidates': candidates}


def describe(tokenizer: Tokenizer, row: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns an encoded row as text with its masks, and the target: each hidden token and what is shown there."""
    count = int(row['count'])
    fields = {'masked text': decode_text(tokenizer, row['tokens'][: int(row['length'])])}
    if 'targets' in row:
        shown = row['tokens'][row['positions'][:count]]
        pairs = zip(row['positions'][:count].tolist(), row['targets'][:count], shown, strict=True)
        fields['target'] = ', '.join(
            f'{place}: {decode_text(tokenizer, [target])!r} shown as {decode_text(tokenizer, [seen])!r}'
            for place, target, seen in pairs
        )
    return fields


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; `config.model` is the Transformer's shape, an encoder, or names pretrained weights.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings, _ = settings_of(config), open_dataset(config.data, ('text',))  # both checked
    sizes = {'vocabulary': settings.vocabulary, 'length': settings.length}
    shape, weights = read_shape(config.model, folder, **sizes), config.model.get('weights', '')
    if shape.causal:
        raise UserError('config.model.causal=True: a masked model reads both sides of a mask; set it to False')
    if weights:  # no loss would train the pooler; a head is made where there is none
        shape = dataclasses.replace(shape, pooler=False, head_transform=True, head_bias=True)
    model, facts = Transformer(shape), read_facts(folder, shape.vocabulary)
    marks = marks_of(facts.tokenizer, weights)
    block = block_length(settings, marks)

    def init(key):
        params, _ = initialize(model, key, jnp.zeros((1, 1), jnp.int32))
        return Variables({'model': params}, {})

    about = f'a text of at most {block} tokens with 1 to {settings.count} {MASK}'
    limit = settings.length * max(int(facts.bytes.max()), len(MASK))
    return Task(
        inputs={'text': Input('text', limit=limit, about=about)},
        source=functools.cache(lambda split: Blocks(read_stream(folder, split), block, overlap=0)),
        encode=Encoder(facts, settings, marks),
        init=init,
        load=make_load(config.model, folder),
        losses={'model': make_loss(model)},
        predict=make_predict(model, settings.top),
        metric_sums=make_metric_sums(model, facts),
        metrics=metrics,
        decode=functools.partial(decode, facts.tokenizer, marks),
        examples=[{'text': text} for text in settings.prompts],
        describe=functools.partial(describe, facts.tokenizer),
    )
