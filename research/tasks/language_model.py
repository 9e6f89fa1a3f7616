"""Predicting the next token of text: a decoder-only Transformer over byte-level BPE or characters.

A row is a block of `length` + 1 tokens of a stream of documents, or whole documents packed side by side; a
request is {'text'}, the beginning of a text to be continued.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Aux, Context, Generate, Input, Metric, Task, Variables
from research.data.dataset import open_dataset
from research.data.text.corpus import END, Blocks, decode_text
from research.data.text.packing import Packed
from research.data.text.python_lines import python_lines
from research.data.text.token_streams import Facts, read_facts, read_stream, request_text, request_tokens, store_streams
from research.errors import UserError, choose, unpack
from research.interop.pretrained import make_load, read_shape, stream_tokenizer
from research.nn.apply import initialize
from research.nn.transformer import Transformer, empty_cache
from research.ops.losses import softmax_cross_entropy
from research.ops.sampling import check_sampling, sample
from research.ops.token_metrics import token_metrics, token_sums, unigrams


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `config.task`; lengths are in tokens."""

    tokenizer: Literal['bpe', 'character'] = 'bpe'
    vocabulary: int = 2048
    length: int = 128  # tokens of a row, and the most positions the model reads
    documents: Literal['joined', 'packed'] = 'joined'  # 'packed': attention stays inside a document
    stride: int = 0  # from one training row to the next in joined documents; 0: length; 1: crops anywhere
    objective: Literal['causal', 'prefix'] = 'causal'  # 'prefix': a first part is seen whole and not predicted
    max_new_tokens: int = 64  # of a continuation
    temperature: float = 0.8  # 0: always the likeliest token
    top_k: int = 0  # 0: off
    top_p: float = 0.95  # 1: off
    prompts: tuple = ()  # texts continued in the report; none: the first rows of the split
    check: Literal['', 'python'] = ''  # 'python': share of generated lines that Python's tokenize accepts
    check_count: int = 32  # rows whose continuations are checked

    def __post_init__(self):
        for name in ('length', 'max_new_tokens', 'check_count'):
            if getattr(self, name) < 1:
                raise UserError(f'config.task.{name} must be above zero, got {getattr(self, name)}')
        if not 0 <= self.stride <= self.length:
            raise UserError(f'config.task.stride must be 0 to length={self.length}, got {self.stride}')
        if self.documents == 'packed' and (self.stride or self.objective == 'prefix'):
            raise UserError("config.task.documents='packed' goes with no stride and with objective='causal' only")
        if self.objective == 'prefix' and self.length < 2:
            raise UserError("config.task.objective='prefix' needs a length of 2 or more")
        if self.max_new_tokens >= self.length:
            raise UserError(
                f'config.task.max_new_tokens={self.max_new_tokens} leaves no room for a prompt in '
                f'config.task.length={self.length}'
            )
        check_sampling(self.temperature, self.top_k, self.top_p)

    @property
    def prompt_limit(self) -> int:
        """The most tokens of a request, so that its continuation fits."""
        return self.length - self.max_new_tokens


def settings_of(config: Any) -> Settings:
    """Returns the checked settings of `config.task`."""
    return unpack(Settings, {key: value for key, value in config.task.items() if key != 'name'}, 'task')


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer and stores every split as one stream of its tokens; see `store_streams`."""
    settings, corpus = settings_of(config), open_dataset(config.data, ('text',))
    tokenizer = stream_tokenizer(config.model, folder)  # None: no pretrained weights
    store_streams(
        corpus, folder, settings.tokenizer, settings.vocabulary, settings.length + 1, tokenizer=tokenizer
    )


def make_source(settings: Settings, folder: epath.Path, end: int) -> Callable[[str], Sequence]:
    """Returns `source`: blocks of the stream of a split, or its documents packed into rows."""

    @functools.cache  # packing reads the whole split
    def source(split: str) -> Sequence:
        stream = read_stream(folder, split)
        if settings.documents == 'packed':
            return Packed(stream, end, settings.length)
        return Blocks(stream, settings.length, settings.stride if split == 'train' else 0)

    return source


def encode(facts: Facts, settings: Settings, raw: Mapping[str, Any], rng: Any = None) -> dict[str, np.ndarray]:
    """Returns 'tokens' [length] and their 'length'; a row also has 'targets', the token after each.

    Packed documents come with 'segments' [length]. Prefix-LM adds 'prefix': how many first tokens all others
    see; drawn evenly from 1 to length - 1 by `rng`, without it half of the row.

    Raises:
      UserError: for a request that is no text, is empty, or leaves no room for its continuation.
    """
    length = np.int32(settings.length)
    if 'tokens' in raw:
        row = dict(raw)
        if 'targets' not in raw:
            block = np.asarray(raw['tokens'], np.int32)
            row = {'tokens': block[:-1], 'targets': block[1:], 'length': length}
        if settings.objective == 'prefix':
            row['prefix'] = length // 2 if rng is None else np.int32(rng.integers(1, settings.length))
        return row
    most = settings.prompt_limit
    advice = f'at most {most} leave room for {settings.max_new_tokens} new ones'
    tokens = request_tokens(facts, request_text(raw, 'to continue'), most, advice)
    padded = np.zeros(settings.length, np.int32)
    padded[: len(tokens)] = tokens
    row = {'tokens': padded, 'length': np.int32(len(tokens))}
    return {**row, 'prefix': row['length']} if settings.objective == 'prefix' else row


def make_generate(model: Transformer, end: int) -> Generate:
    """Returns generation with a cache; positions are those of each row."""
    settings = model.settings

    def start(variables, prompts, capacity):
        tokens, length = prompts['tokens'], prompts['length']
        cache = empty_cache(settings, tokens.shape[0], capacity)
        params = {'params': variables.params['model']}
        _, cache = model.apply(params, tokens, prefix=prompts.get('prefix'), cache=cache)
        # the first step reads the last token again; it and those after overwrite what padding left behind
        cache = {**cache, 'position': length - 1}
        return {**cache, 'prefix': prompts['prefix']} if 'prefix' in prompts else cache

    def step(variables, cache, tokens):
        position = cache['position']
        params = {'params': variables.params['model']}
        prefix = cache.get('prefix')  # seen even from outside the window
        logits, cache = model.apply(params, tokens[:, None], prefix=prefix, cache=cache, read_from=position)
        return {**cache, 'position': position + 1}, logits[:, 0]

    return Generate(start, step, end, settings.length)


def make_loss(model: Transformer) -> Callable:
    """Returns the loss: the sum of cross-entropies, in nats, over tokens, which are its weight."""

    def loss(variables, batch, context):
        logits = apply(model, variables, batch, context)
        mask = token_mask(batch)
        values = softmax_cross_entropy(logits, batch['targets']) * mask
        correct = (jnp.argmax(logits, axis=-1) == batch['targets']) * mask
        aux = Aux(jnp.sum(mask), logs={'accuracy': jnp.sum(correct)}, outputs={'logits': logits})
        return jnp.sum(values), aux

    return loss


def apply(model: Transformer, variables: Variables, batch: Mapping[str, Any], context: Context) -> jax.Array:
    """Returns the logits of a batch, with dropout in training."""
    module = model.clone(train=context.train)
    logits, _ = module.apply(
        {'params': variables.params['model']}, batch['tokens'], segments=batch.get('segments'),
        prefix=batch.get('prefix'), rngs={'dropout': context.fold('dropout')} if context.train else None,
    )  # fmt: skip
    return logits


def token_mask(batch: Mapping[str, Any]) -> jax.Array:
    """Returns 1.0 for every token whose next one counts, float32 [batch, length]."""
    place = jnp.arange(batch['tokens'].shape[1])
    inside = place < batch['length'][:, None]
    if 'prefix' in batch:  # its last token predicts the first that is not seen
        inside &= place >= batch['prefix'][:, None] - 1
    return inside * batch['mask'][:, None]


def make_predict(generate: Generate, settings: Settings) -> Callable:
    """Returns `predict`: a request's whole text, or the first half of a row, and a continuation."""

    def predict(variables, batch, context):
        length = row_prompt(batch) if 'targets' in batch else batch['length']
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('sample'), batch['index'])
        prompts = {'tokens': batch['tokens'], 'length': length}
        if settings.objective == 'prefix':
            prompts['prefix'] = length
        sampled = sample(
            generate, variables, prompts, keys, settings.max_new_tokens,
            settings.temperature, settings.top_k, settings.top_p,
        )  # fmt: skip
        return {
            'prompt': batch['tokens'], 'prompt_length': length,
            'tokens': sampled.tokens, 'length': sampled.length,
        }  # fmt: skip

    return predict


def row_prompt(row: Mapping[str, Any]) -> Any:
    """Returns how many tokens of a row (or batch of rows) are continued: half of it, or of its first document."""
    length, segments = row['length'], row.get('segments')
    first = length if segments is None else (segments == 0).sum(-1).astype(length.dtype)
    return jnp.maximum(first // 2, 1)


def make_metric_sums(model: Transformer, facts: Facts) -> Callable:
    """Returns `metric_sums`: sums over tokens for the model and for a unigram model of the training split."""
    baseline, sizes = unigrams(facts.counts), np.asarray(facts.bytes, np.float32)

    def metric_sums(variables, batch, context):
        logits = apply(model, variables, batch, context._replace(train=False))
        targets, mask = batch['targets'], token_mask(batch)
        sums = token_sums(logits, targets, mask, baseline)
        return {**sums, 'bytes': jnp.sum(jnp.asarray(sizes)[targets] * mask)}

    return metric_sums


def metrics(sums: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """Returns loss, perplexity, bits per byte and accuracy, beside those of the training split's unigrams."""
    return {name: Metric(*measure) for name, measure in token_metrics(sums, 'token').items()}


def make_decode(tokenizer: Tokenizer) -> Callable:
    """Returns `decode`: the prompt and its continuation as text."""

    def decode(outputs):
        def text(name, length):
            tokens = np.asarray(outputs[name])[: int(outputs[length])].tolist()
            return tokenizer.decode(tokens, skip_special_tokens=True)

        return {'prompt': text('prompt', 'prompt_length'), 'text': text('tokens', 'length')}

    return decode


def describe(tokenizer: Tokenizer, row: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns an encoded row as text, its target, and the first of its pairs of a token and the next."""
    length = int(row['length'])
    fields = {'text': decode_text(tokenizer, row['tokens'][:length])}
    if 'segments' in row:
        parts = (row['tokens'][row['segments'] == part] for part in range(int(row['segments'].max()) + 1))
        fields['text'] = '\n| next document |\n'.join(decode_text(tokenizer, part) for part in parts)
    if 'targets' in row:
        start = int(row.get('prefix', 1)) - 1
        fields['target'] = decode_text(tokenizer, row['targets'][start:length])
        pairs = list(zip(row['tokens'][start:length], row['targets'][start:length], strict=True))[:6]
        words = ([decode_text(tokenizer, [each]) for each in pair] for pair in pairs)
        fields['token and the next'] = ', '.join(f'{token!r} {following!r}' for token, following in words) + ', ...'
    return fields


def make_finalize(tokenizer: Tokenizer, settings: Settings) -> Callable | None:
    """Returns the check of generated text against the corpus' own continuations, or None."""

    def finalize(pairs: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Metric]:
        written, own = [], []
        for raw, decoded in itertools.islice(pairs, settings.check_count):
            start = int(row_prompt({'length': np.int32(settings.length), **raw}))
            tokens = np.asarray(raw['tokens'])[start : start + settings.max_new_tokens]
            written.append(decoded['text'])
            own.append(tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
        (good, lines), (own_good, own_lines) = python_lines(written), python_lines(own)
        about = f"{good} of {lines} generated lines that Python's tokenize accepts, {len(written)} texts"
        own_about = f'the corpus continues itself: {own_good} of {own_lines}'
        shares = good / max(lines, 1), own_good / max(own_lines, 1)
        return {'python_lines': Metric(*shares, '', about, own_about)}  # the corpus is a mark, not a floor

    return choose(settings.check, {'python': finalize, '': None}, 'config.task.check')


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; `config.model` is the Transformer's shape.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings, _ = settings_of(config), open_dataset(config.data, ('text',))  # both checked
    sizes = {'vocabulary': settings.vocabulary, 'length': settings.length}
    shape = read_shape(config.model, folder, **sizes)
    if not shape.causal:
        raise UserError('config.model.causal=False: a language model must not see the token it predicts')
    model, facts = Transformer(shape), read_facts(folder, shape.vocabulary)
    end = facts.tokenizer.token_to_id(END)
    generate = make_generate(model, end)

    def init(key):
        params, _ = initialize(model, key, jnp.zeros((1, 1), jnp.int32))
        return Variables({'model': params}, {})

    limit = settings.prompt_limit
    about = f'the beginning of a text, at most {limit} tokens'
    return Task(
        inputs={'text': Input('text', limit=limit * int(facts.bytes.max()), about=about)},
        source=make_source(settings, folder, end),
        encode=functools.partial(encode, facts, settings),
        init=init,
        load=make_load(config.model, folder),
        losses={'model': make_loss(model)},
        predict=make_predict(generate, settings),
        metric_sums=make_metric_sums(model, facts),
        metrics=metrics,
        decode=make_decode(facts.tokenizer),
        generate=generate,
        finalize=make_finalize(facts.tokenizer, settings),
        finalize_count=settings.check_count,
        examples=[{'text': text} for text in settings.prompts],
        describe=functools.partial(describe, facts.tokenizer),
    )
