"""Writing the spans that are missing from a text: T5's pre-training (Raffel et al. 2020, arXiv:1910.10683).

A row is a block of `length` tokens of a stream of documents, some spans of it replaced by sentinels in the
source; the target has each sentinel followed by its span. A request is {'text'} with <extra_id_0>,
<extra_id_1>, ... where something is missing. With `config.model.weights` tokenizer, sentinels, end and the decoder's
start are those of the weights (T5).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Aux, Context, Generate, Input, Metric, Task, Variables
from research.data.dataset import open_dataset
from research.data.text.corpus import END, Blocks, decode_text
from research.data.text.corruption import corrupt_spans, fill_spans, generator_of, span_sizes, spans
from research.data.text.token_streams import Facts, read_facts, read_stream, request_text, request_tokens, store_streams
from research.errors import UserError, unpack
from research.interop.pretrained import make_load, read_marks, read_shape, store
from research.nn.apply import initialize
from research.nn.encoder_decoder import EncoderDecoder
from research.ops.losses import softmax_cross_entropy
from research.ops.sampling import check_sampling, sample
from research.ops.token_metrics import token_metrics, token_sums, unigrams

SENTINEL = re.compile(r'(<extra_id_\d+>)')


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `config.task`; lengths are in tokens."""

    tokenizer: Literal['bpe', 'character'] = 'bpe'
    vocabulary: int = 2048
    length: int = 128  # tokens of a row before spans are taken out
    density: float = 0.15  # share of the tokens that is taken out
    mean_span: float = 3.0  # tokens of a span, on average
    temperature: float = 0.0  # of answers; 0: always the likeliest token
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    prompts: tuple = ()  # texts with sentinels answered in the report; none: the first rows of the split

    def __post_init__(self):
        if self.length < 2:
            raise UserError(f'config.task.length must be 2 or more, got {self.length}')
        if not 0 < self.density < 1:
            raise UserError(f'config.task.density must be between 0 and 1, got {self.density}')
        if self.mean_span < 1:
            raise UserError(f'config.task.mean_span must be 1 or more, got {self.mean_span}')
        check_sampling(self.temperature, self.top_k, self.top_p)

    @property
    def hidden(self) -> int:
        """Tokens taken out of a row."""
        return span_sizes(self.length, self.density, self.mean_span)[0]

    @property
    def spans(self) -> int:
        """Spans taken out of a row, and the most that a request may ask for."""
        return span_sizes(self.length, self.density, self.mean_span)[1]

    @property
    def source_length(self) -> int:
        """Tokens of a source: what is left, a sentinel for each span, and the end."""
        return self.length - self.hidden + self.spans + 1

    @property
    def target_length(self) -> int:
        """Tokens of a target: what was taken out, a sentinel for each span and one more, and the end."""
        return self.hidden + self.spans + 2

    @property
    def sentinels(self) -> tuple[str, ...]:
        """The names of all sentinels, one for each span and one that closes the target."""
        return tuple(f'<extra_id_{number}>' for number in range(self.spans + 1))

    @property
    def positions(self) -> int:
        """The most that encoder and decoder read."""
        return max(self.source_length, self.target_length + 1)


def settings_of(config: Any) -> Settings:
    """Returns the checked settings of `config.task`."""
    return unpack(Settings, {key: value for key, value in config.task.items() if key != 'name'}, 'task')


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer, or takes that of the weights, and stores every split as one stream of its tokens."""
    settings, end = settings_of(config), None
    tokenizer = store(config.model, folder, 'encoder-decoder')
    if tokenizer is not None:
        check_sentinels(tokenizer, settings, config.model['weights'])
        _, end = read_marks(config.model, folder)
        read_shape(config.model, folder, vocabulary=1, length=settings.positions)  # refuses the length
    kind, corpus = settings.tokenizer, open_dataset(config.data, ('text',))
    store_streams(corpus, folder, kind, settings.vocabulary, settings.length, settings.sentinels, tokenizer, end)


def check_sentinels(tokenizer: Tokenizer, settings: Settings, weights: str) -> None:
    """Raises a `UserError` where the tokenizer of weights has too few sentinels for a row."""
    lacks = [name for name in settings.sentinels if tokenizer.token_to_id(name) is None]
    if lacks:
        none = tokenizer.token_to_id(settings.sentinels[0]) is None
        raise UserError(
            f'config.model.weights={weights!r}: its tokenizer has no {lacks[0]}: '
            + ('it was not made for spans; take a T5' if none else 'lower config.task.length or density')
        )


class Tokens:
    """Texts and rows to arrays and back; can be pickled. `marks` are a decoder's start and the end of a text."""

    def __init__(self, facts: Facts, settings: Settings, marks: tuple[int, int] | None = None):
        self.facts, self.settings, self.pretrained = facts, settings, marks is not None
        self.start, self.end = marks or (facts.tokenizer.token_to_id(END),) * 2
        self.sentinels = np.array([facts.tokenizer.token_to_id(name) for name in settings.sentinels], np.int32)

    def encode(self, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
        """Returns 'source' [source length], 'source_length', and the target up to each token: 'tokens', 'length'.

        A row also has 'targets', the token after each. Spans are drawn by `rng`, anew in every epoch; without
        it they follow from the row itself. 'tokens' begin with the decoder's start (without weights, the end of the
        text before); a request has only that one.

        Raises:
          UserError: for a request that is no text, is empty or too long, or whose sentinels are not 0, 1, ...
        """
        settings = self.settings
        if 'tokens' not in raw:
            source = self.request(request_text(raw, f'and {settings.sentinels[0]}'))
            return self.arrays(source, np.zeros(0, np.int32))
        tokens = np.asarray(raw['tokens'], np.int32)
        hidden = spans(len(tokens), settings.hidden, settings.spans, rng or generator_of(tokens))
        source, target = corrupt_spans(tokens, hidden, self.sentinels, self.end)
        return {**self.arrays(source, target[:-1]), 'targets': target}

    def arrays(self, source: np.ndarray, before: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the fixed shapes of a source and of what the decoder reads, its start put before it."""
        row = {'source': np.zeros(self.settings.source_length, np.int32)}
        row['source'][: len(source)] = source
        row['tokens'] = np.full(self.settings.target_length, self.start, np.int32)
        row['tokens'][1 : 1 + len(before)] = before
        return {**row, 'source_length': np.int32(len(source)), 'length': np.int32(1 + len(before))}

    def request(self, text: str) -> np.ndarray:
        """Returns the source of a text with sentinels. A space before one belongs to what is missing."""
        settings, parts = self.settings, SENTINEL.split(text)
        asked, expected = parts[1::2], list(settings.sentinels[: len(parts) // 2])
        if not 0 < len(asked) <= settings.spans or asked != expected:
            raise UserError(
                f"the request's 'text' has the sentinels {', '.join(asked) or '(none)'}: write "
                f'{settings.sentinels[0]} where something is missing, then {settings.sentinels[1]}, and so on up to '
                f'{settings.sentinels[settings.spans - 1]}, each once and in order'
            )
        most, source = settings.source_length - 1, []
        advice = f'the model reads {most}'
        for number, part in enumerate(parts):
            if number % 2:
                source.append(int(self.sentinels[number // 2]))
                continue
            follows = number + 1 < len(parts) and (settings.tokenizer == 'bpe' or self.pretrained)
            part = part.removesuffix(' ') if follows else part
            source += request_tokens(self.facts, part, most, advice) if part else []
        if len(source) > most:
            raise UserError(f"the request's 'text' has {len(source)} tokens; {advice}: shorten it")
        return np.array([*source, self.end], np.int32)

    def decode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Returns the source as text, the text with its spans filled in, and each span by its sentinel."""
        source = np.asarray(outputs['source'])[: int(outputs['source_length'])].tolist()
        target = np.asarray(outputs['tokens'])[: int(outputs['length'])].tolist()
        return {
            'source': self.text(source[:-1]),
            'text': self.text(fill_spans(source, target, self.sentinels.tolist(), self.end)),
            'spans': {
                name: self.text(fill_spans([sentinel], target, self.sentinels.tolist(), self.end))
                for name, sentinel in zip(self.settings.sentinels, self.sentinels.tolist(), strict=True)
                if sentinel in source
            },
        }

    def describe(self, row: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Returns an encoded row as text: the source with its sentinels, the target, and the text of both."""
        source = np.asarray(row['source'])[: int(row['source_length'])].tolist()
        if 'targets' not in row:
            return {'source': self.text(source)}
        target = row['targets'].tolist()
        whole = fill_spans(source, target, self.sentinels.tolist(), self.end)
        return {'source': self.text(source), 'target': self.text(target), 'text': self.text(whole)}

    def text(self, tokens: list[int]) -> str:
        """Returns tokens as text, special ones by name."""
        return decode_text(self.facts.tokenizer, tokens)

    def target_counts(self) -> np.ndarray:
        """Returns how often each token is to be expected in the targets of the training split."""
        settings, counts = self.settings, np.asarray(self.facts.counts, np.float64)
        rows = counts.sum() / settings.length
        expected = counts * settings.hidden / settings.length
        expected[self.sentinels] += rows
        expected[self.end] += rows
        return expected


def make_generate(model: EncoderDecoder, start_token: int, end: int, limit: int) -> Generate:
    """Returns generation with a cache; prompts hold a 'source' beside their one first token, which is never written."""

    def start(variables, prompts, capacity):
        params, source = {'params': variables.params['model']}, (prompts['source'], prompts['source_length'])
        memory = model.apply(params, *source, method='encode')
        return model.apply(params, memory, prompts['source_length'], capacity, method='start_cache')

    def step(variables, cache, tokens):
        cache, logits = model.apply({'params': variables.params['model']}, cache, tokens, method='step')
        return cache, logits if start_token == end else logits.at[:, start_token].set(-jnp.inf)

    return Generate(start, step, end, limit)


def apply(model: EncoderDecoder, variables: Variables, batch: Mapping[str, Any], context: Context) -> jax.Array:
    """Returns the logits of a batch, with dropout in training."""
    rngs = {'dropout': context.fold('dropout')} if context.train else None
    inputs = (batch[name] for name in ('source', 'source_length', 'tokens', 'length'))
    return model.clone(train=context.train).apply({'params': variables.params['model']}, *inputs, rngs=rngs)


def token_mask(batch: Mapping[str, Any]) -> jax.Array:
    """Returns 1.0 for every token of a target, float32 [batch, length]."""
    return (jnp.arange(batch['tokens'].shape[1]) < batch['length'][:, None]) * batch['mask'][:, None]


def make_loss(model: EncoderDecoder) -> Callable:
    """Returns the loss: the sum of cross-entropies, in nats, over target tokens, which are its weight."""

    def loss(variables, batch, context):
        logits, mask = apply(model, variables, batch, context), token_mask(batch)
        correct = (jnp.argmax(logits, axis=-1) == batch['targets']) * mask
        aux = Aux(jnp.sum(mask), logs={'accuracy': jnp.sum(correct)}, outputs={'logits': logits})
        return jnp.sum(softmax_cross_entropy(logits, batch['targets']) * mask), aux

    return loss


def make_metric_sums(model: EncoderDecoder, counts: np.ndarray) -> Callable:
    """Returns `metric_sums`: sums over target tokens for the model and for a unigram model of training targets."""
    baseline = unigrams(counts)

    def metric_sums(variables, batch, context):
        logits = apply(model, variables, batch, context._replace(train=False))
        return token_sums(logits, batch['targets'], token_mask(batch), baseline)

    return metric_sums


def metrics(sums: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """Returns loss, perplexity and accuracy over target tokens, beside those of the training targets' unigrams."""
    return {name: Metric(*measure) for name, measure in token_metrics(sums, 'target token').items()}


def make_predict(generate: Generate, settings: Settings) -> Callable:
    """Returns `predict`: the source as it was read, and the target that the model writes for it."""

    def predict(variables, batch, context):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('sample'), batch['index'])
        source = {name: batch[name] for name in ('source', 'source_length')}
        prompts = {**source, 'tokens': batch['tokens'][:, :1], 'length': jnp.ones_like(batch['length'])}
        written = sample(
            generate, variables, prompts, keys, settings.target_length,
            settings.temperature, settings.top_k, settings.top_p,
        )  # fmt: skip
        return {**source, 'tokens': written.tokens, 'length': written.length}

    return predict


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; `config.model` is the shape of encoder and decoder, or names pretrained weights.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings, _ = settings_of(config), open_dataset(config.data, ('text',))  # both checked
    shape = read_shape(config.model, folder, vocabulary=settings.vocabulary, length=settings.positions)
    model, facts = EncoderDecoder(shape), read_facts(folder, shape.vocabulary)
    tokens = Tokens(facts, settings, read_marks(config.model, folder))
    generate = make_generate(model, tokens.start, tokens.end, settings.positions)

    def init(key):
        one = jnp.zeros((1, 1), jnp.int32)
        params, _ = initialize(model, key, one, jnp.ones(1, jnp.int32), one)
        return Variables({'model': params}, {})

    names = f'{settings.sentinels[0]} to {settings.sentinels[settings.spans - 1]}'
    most = settings.source_length - 1
    return Task(
        inputs={
            'text': Input(
                'text', limit=most * max(int(facts.bytes.max()), len(settings.sentinels[-1])),
                about=f'a text of at most {most} tokens with {names} where something is missing',
            )  # fmt: skip
        },
        source=functools.cache(lambda split: Blocks(read_stream(folder, split), settings.length, overlap=0)),
        encode=tokens.encode,
        init=init,
        load=make_load(config.model, folder),
        losses={'model': make_loss(model)},
        predict=make_predict(generate, settings),
        metric_sums=make_metric_sums(model, tokens.target_counts()),
        metrics=metrics,
        decode=tokens.decode,
        generate=generate,
        examples=[{'text': text} for text in settings.prompts],
        describe=tokens.describe,
    )
