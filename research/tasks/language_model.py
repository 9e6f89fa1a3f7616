"""Predicting the next token of text: a decoder-only Transformer over byte-level BPE.

A row is a block of `length` + 1 tokens of a stream of documents; a request is {'text'}, the beginning of a
text to be continued.
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Aux, Context, Figure, Generate, Input, Task, Variables
from research.data.python_source import python_lines
from research.data.text import (
    END,
    Blocks,
    bytes_of_tokens,
    decode_text,
    encode_documents,
    encode_text,
    load_array,
    save_array,
    train_tokenizer,
)
from research.data.text_sets import text_set
from research.errors import UserError, choose, unpack
from research.nn.apply import initialize
from research.nn.transformer import Transformer, empty_cache
from research.nn.transformer_settings import TransformerSettings
from research.ops.losses import softmax_cross_entropy
from research.ops.sampling import check_sampling, sample

SPLITS = ('train', 'validation', 'test')


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `config.task`; lengths are in tokens."""

    vocabulary: int = 2048
    length: int = 128  # tokens of a row, and the most positions the model reads
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


class Facts(NamedTuple):
    """What `prepare` stores of the training split: its tokenizer, and each token's count and bytes."""

    tokenizer: Tokenizer
    counts: np.ndarray
    bytes: np.ndarray


def settings_of(config: Any) -> Settings:
    """Returns the checked settings of `config.task`."""
    return unpack(Settings, {key: value for key, value in config.task.items() if key != 'name'}, 'task')


def prepare(config: Any, folder: epath.Path) -> None:
    """Trains the tokenizer on the training split and stores every split as one stream of its tokens.

    Writes tokenizer.json, <split>.npy, counts.npy and bytes.npy (of each token) and corpus.json (where the
    text comes from, its hash, sizes).
    """
    settings, corpus = settings_of(config), text_set(config.data)()
    make_tokenizer = corpus.tokenizer or functools.partial(train_tokenizer, corpus.documents['train'])
    tokenizer = make_tokenizer(settings.vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for split in SPLITS:
        stream = encode_documents(tokenizer, corpus.documents[split])
        if len(stream) <= settings.length:
            raise UserError(
                f'the {split} split has {len(stream)} tokens, too few for one row of config.task.length='
                f'{settings.length}: take more text, or shorter rows'
            )
        save_array(folder / f'{split}.npy', stream)
        sizes[split] = len(stream)
        if split == 'train':
            save_array(folder / 'counts.npy', np.bincount(stream, minlength=settings.vocabulary))
    save_array(folder / 'bytes.npy', bytes_of_tokens(tokenizer))
    (folder / 'tokenizer.json').write_text(tokenizer.to_str())
    (folder / 'corpus.json').write_text(json.dumps({**corpus.about, 'tokens': sizes}, indent=2))


def encode(
    tokenizer: Tokenizer, settings: Settings, raw: Mapping[str, Any], rng: Any = None
) -> dict[str, np.ndarray]:
    """Returns 'tokens' [length] and their 'length'; a row also has 'targets', the token after each.

    Raises:
      UserError: for a request that is no text, is empty, or leaves no room for its continuation.
    """
    del rng  # nothing is augmented
    if 'tokens' in raw:
        block = np.asarray(raw['tokens'], np.int32)
        return {'tokens': block[:-1], 'targets': block[1:], 'length': np.int32(settings.length)}
    text, most = raw.get('text'), settings.prompt_limit
    if not isinstance(text, str):
        raise UserError("the request has no 'text', or it is not a string")
    if not text:
        raise UserError("the request's 'text' is empty: give at least one character to continue")
    limit = text_limit(tokenizer, settings)
    if len(text) > limit:
        raise UserError(f"the request's 'text' has {len(text)} characters; {most} tokens hold {limit}")
    tokens = encode_text(tokenizer, text)
    if len(tokens) > most:
        raise UserError(
            f"the request's 'text' has {len(tokens)} tokens; at most {most} leave room for "
            f'{settings.max_new_tokens} new ones: shorten it'
        )
    padded = np.zeros(settings.length, np.int32)
    padded[: len(tokens)] = tokens
    return {'tokens': padded, 'length': np.int32(len(tokens))}


def text_limit(tokenizer: Tokenizer, settings: Settings) -> int:
    """Returns the most characters that the tokens of a request could hold."""
    return settings.prompt_limit * max(map(len, tokenizer.get_vocab()))


def make_generate(model: Transformer, end: int) -> Generate:
    """Returns generation with a cache; positions are those of each row."""
    settings = model.settings

    def start(variables, prompts, capacity):
        tokens, length = prompts['tokens'], prompts['length']
        cache = empty_cache(settings, tokens.shape[0], capacity)
        _, cache = model.apply({'params': variables.params['model']}, tokens, cache=cache)
        # the first step reads the last token again; it and those after overwrite what padding left behind
        return {**cache, 'position': length - 1}

    def step(variables, cache, tokens):
        position = cache['position']
        params = {'params': variables.params['model']}
        logits, cache = model.apply(params, tokens[:, None], cache=cache, read_from=position)
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
    rngs = {'dropout': context.fold('dropout')} if context.train else None
    logits, _ = module.apply({'params': variables.params['model']}, batch['tokens'], rngs=rngs)
    return logits


def token_mask(batch: Mapping[str, Any]) -> jax.Array:
    """Returns 1.0 for every token that counts, float32 [batch, length]."""
    inside = jnp.arange(batch['tokens'].shape[1]) < batch['length'][:, None]
    return inside * batch['mask'][:, None]


def make_predict(generate: Generate, settings: Settings) -> Callable:
    """Returns `predict`: a request's whole text, or the first half of a row, and a continuation."""

    def predict(variables, batch, context):
        row = 'targets' in batch
        length = jnp.full_like(batch['length'], max(settings.length // 2, 1)) if row else batch['length']
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('sample'), batch['index'])
        prompts = {'tokens': batch['tokens'], 'length': length}
        sampled = sample(
            generate, variables, prompts, keys, settings.max_new_tokens,
            settings.temperature, settings.top_k, settings.top_p,
        )  # fmt: skip
        return {
            'prompt': batch['tokens'], 'prompt_length': length,
            'tokens': sampled.tokens, 'length': sampled.length,
        }  # fmt: skip

    return predict


def make_metrics(model: Transformer, facts: Facts) -> Callable:
    """Returns `metrics`: sums over tokens for the model and for a unigram model of the training split."""
    counts = facts.counts.astype(np.float64) + 1  # so that a token never seen is not impossible
    unigram = -np.log(counts / counts.sum()).astype(np.float32)
    commonest, sizes = int(np.argmax(facts.counts)), np.asarray(facts.bytes, np.float32)

    def metrics(variables, batch, context):
        logits = apply(model, variables, batch, context._replace(train=False))
        targets, mask = batch['targets'], token_mask(batch)
        return {
            'nll': jnp.sum(softmax_cross_entropy(logits, targets) * mask),
            'tokens': jnp.sum(mask),
            'bytes': jnp.sum(jnp.asarray(sizes)[targets] * mask),
            'correct': jnp.sum((jnp.argmax(logits, axis=-1) == targets) * mask),
            'unigram_nll': jnp.sum(jnp.asarray(unigram)[targets] * mask),
            'unigram_correct': jnp.sum((targets == commonest) * mask),
        }

    return metrics


def figures(sums: Mapping[str, np.ndarray]) -> dict[str, Figure]:
    """Returns loss, perplexity, bits per byte and accuracy, beside those of the training split's unigrams."""
    values = {name: float(value) for name, value in sums.items()}
    tokens, bits = values['tokens'], math.log(2) * max(values['bytes'], 1.0)
    nll, unigram = values['nll'], values['unigram_nll']
    about = 'unigrams of the training split'
    return {
        'loss': Figure(nll / tokens, unigram / tokens, 'lower', 'cross-entropy per token, nats', about),
        'perplexity': Figure(power(nll / tokens), power(unigram / tokens), 'lower', 'per token', about),
        'bits_per_byte': Figure(nll / bits, unigram / bits, 'lower', 'of text, its ends included', about),
        'accuracy': Figure(
            values['correct'] / tokens, values['unigram_correct'] / tokens, 'higher',
            'next token the likeliest', 'always the commonest token',
        ),
    }  # fmt: skip


def power(value: float) -> float:
    """Returns e ** value, or infinity where a float cannot hold it."""
    return math.exp(value) if value < 700 else math.inf


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
    if 'targets' in row:
        fields['target'] = decode_text(tokenizer, row['targets'][:length])
        pairs = list(zip(row['tokens'][:length], row['targets'][:length], strict=True))[:6]
        words = ([decode_text(tokenizer, [each]) for each in pair] for pair in pairs)
        fields['token and the next'] = ', '.join(f'{token!r} {following!r}' for token, following in words) + ', ...'
    return fields


def make_finalize(tokenizer: Tokenizer, settings: Settings) -> Callable | None:
    """Returns the check of generated text against the corpus' own continuations, or None."""

    def finalize(pairs: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Figure]:
        written, own = [], []
        for raw, decoded in itertools.islice(pairs, settings.check_count):
            start = max(settings.length // 2, 1)
            tokens = np.asarray(raw['tokens'])[start : start + settings.max_new_tokens]
            written.append(decoded['text'])
            own.append(tokenizer.decode(tokens.tolist(), skip_special_tokens=True))
        (good, lines), (own_good, own_lines) = python_lines(written), python_lines(own)
        about = f"{good} of {lines} generated lines that Python's tokenize accepts, {len(written)} texts"
        own_about = f'the corpus continues itself: {own_good} of {own_lines}'
        shares = good / max(lines, 1), own_good / max(own_lines, 1)
        return {'python_lines': Figure(*shares, '', about, own_about)}  # the corpus is a mark, not a floor

    return choose(settings.check, {'python': finalize, '': None}, 'config.task.check')


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; `config.model` is the Transformer's shape.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings, _ = settings_of(config), text_set(config.data)  # both checked
    sizes = {'vocabulary': settings.vocabulary, 'length': settings.length}
    shape = unpack(TransformerSettings, config.model, 'model', **sizes)
    if not shape.causal:
        raise UserError('config.model.causal=False: a language model must not see the token it predicts')
    model = Transformer(shape)
    tokenizer = Tokenizer.from_str((folder / 'tokenizer.json').read_text())
    facts = Facts(tokenizer, load_array(folder / 'counts.npy'), load_array(folder / 'bytes.npy'))
    generate = make_generate(model, tokenizer.token_to_id(END))

    def source(split: str) -> Blocks:
        name = choose(split, {each: f'{each}.npy' for each in SPLITS}, 'split')
        return Blocks(load_array(folder / name), settings.length)

    def init(key):
        params, _ = initialize(model, key, jnp.zeros((1, 1), jnp.int32))
        return Variables({'model': params}, {})

    about = f'the beginning of a text, at most {settings.prompt_limit} tokens'
    return Task(
        inputs={'text': Input('text', limit=text_limit(tokenizer, settings), about=about)},
        source=source,
        encode=functools.partial(encode, tokenizer, settings),
        init=init,
        losses={'model': make_loss(model)},
        predict=make_predict(generate, settings),
        metrics=make_metrics(model, facts),
        figures=figures,
        decode=make_decode(tokenizer),
        generate=generate,
        finalize=make_finalize(tokenizer, settings),
        finalize_count=settings.check_count,
        examples=[{'text': text} for text in settings.prompts],
        describe=functools.partial(describe, tokenizer),
    )
