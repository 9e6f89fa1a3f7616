"""Turning one text into another: an encoder-decoder Transformer over byte-level BPE, searched with a beam.

A training row holds several pairs, packed; a row of another split is one pair {'source', 'target'}; a request
is {'source'}. The end token closes every text and also starts the target. With `config.model.weights` tokenizers,
end and start are those of the weights (T5, Marian).
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from tokenizers import Tokenizer

from research.core.task import Aux, Context, Generate, Input, Metric, Task, Variables
from research.data.dataset import DataSet, open_dataset
from research.data.text.corpus import encode_text, load_array
from research.data.text.pair_packing import pack
from research.data.text.pair_rows import SIDES, Tokenizers, learn, read_pairs, read_rows, store, tokens_of
from research.errors import UserError, unpack
from research.interop import pretrained
from research.nn.apply import initialize
from research.nn.encoder_decoder import EncoderDecoder
from research.nn.transformer_settings import TransformerSettings
from research.ops.beam_search import beam_search, check_beam
from research.ops.corpus_scores import BleuTokenizer, translation_scores
from research.ops.losses import softmax_cross_entropy

SCORES = {
    'bleu': 'sacreBLEU on detokenised text',
    'bleu_lowercase': 'the same without case',
    'chrf': 'chrF2 on detokenised text',
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of `config.task`; lengths are in tokens, end tokens included."""

    vocabulary: int = 8000  # tokens of each side
    shared: bool = True  # one BPE for both sides, learnt from both
    prefix: str = ''  # before every source, such as 'translate English to German: ' for T5
    length: int = 64  # the most of one text; longer pairs are no training pairs
    row_length: int = 64  # of a packed row, on each side
    label_smoothing: float = 0.1
    beams: int = 5
    length_penalty: float = 1.0  # exponent of the length penalty; 0 compares log-probabilities
    bleu_tokenizer: BleuTokenizer = '13a'
    examples: tuple = ()  # sources translated in the report; none: the first rows of the split
    score_count: int = 0  # pairs of a split that are translated and scored; 0: all

    def __post_init__(self):
        check_beam(self.beams, 1, self.length_penalty)
        if self.length < 2 or self.score_count < 0:
            raise UserError(
                'config.task: length must be above 1 and score_count zero or more, got '
                f'{self.length} and {self.score_count}'
            )
        if self.row_length < self.length:
            raise UserError(
                f'config.task.row_length={self.row_length} is too short for a pair of config.task.length={self.length}'
            )
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f'config.task.label_smoothing must be in 0 to 1, got {self.label_smoothing}')


def settings_of(config: Any) -> Settings:
    """Returns the checked settings of `config.task`."""
    return unpack(Settings, {key: value for key, value in config.task.items() if key != 'name'}, 'task')


def open_pairs(config: Any) -> DataSet:
    """Returns the data set; all translations of a source are in one split."""
    return open_dataset(config.data, ('source', 'target'), ignored=('target',))


def prepare(config: Any, folder: epath.Path) -> None:
    """Learns the tokenizers, or takes those of the weights, plans the packed rows, and stores all pairs."""
    settings = settings_of(config)
    tokenizer = pretrained.store(config.model, folder, 'encoder-decoder')
    if tokenizer is not None:
        read_shape(config, settings, folder)  # refuses the length
    data = open_pairs(config)
    if tokenizer is None:
        tokenizers = learn(read_pairs(data, 'train'), settings.vocabulary, settings.shared)
    else:
        target = pretrained.read_target(config.model, folder, tokenizer)
        tokenizers = Tokenizers(tokenizer, target, *pretrained.read_marks(config.model, folder))
    store(data, tokenizers._replace(prefix=settings.prefix), settings.length, settings.row_length, folder)


def read_shape(config: Any, settings: Settings, folder: epath.Path) -> TransformerSettings:
    """Returns the shape of the model; packed rows may be longer than what weights read at once, texts may not."""
    sizes = {'vocabulary': settings.vocabulary, 'length': settings.length}
    sizes['source_vocabulary'] = 0 if settings.shared else settings.vocabulary
    return dataclasses.replace(pretrained.read_shape(config.model, folder, **sizes), length=settings.row_length)


def read_tokenizers(config: Any, settings: Settings, folder: epath.Path) -> Tokenizers:
    """Returns the tokenizers that were stored, and what they put around texts."""
    sides = (Tokenizer.from_str((folder / f'{side}.json').read_text()) for side in SIDES)
    marks = pretrained.read_marks(config.model, folder) or ()
    return Tokenizers(*sides, *marks)._replace(prefix=settings.prefix)


def encode(tokenizers: Tokenizers, settings: Settings, raw: Mapping[str, Any], rng: Any = None) -> dict[str, Any]:
    """Returns the arrays of a packed row, of one pair, or of a request.

    A packed row: 'source', 'source_segments', 'tokens' (the decoder's input), 'targets' and 'segments', each
    [row_length]. A pair: 'source' and 'targets' [length], 'tokens' [length], and their lengths 'source_length'
    and 'length'; what is too long is cut. A request: its 'source', and 'tokens' [1], the start.

    Raises:
      UserError: for a request that is no text, is empty, or too long.
    """
    del rng  # nothing is augmented
    if 'sources' in raw:
        return encode_packed(raw, settings.row_length, tokenizers.start)
    if 'target' in raw:
        source, target = (tokens[: settings.length] for tokens in tokens_of(tokenizers, (raw['source'], raw['target'])))
        return {
            **padded(source, settings.length),
            'tokens': pack([np.array([tokenizers.start, *target[:-1]])], settings.length)[0],
            'targets': pack([np.array(target)], settings.length)[0],
            'length': np.int32(len(target)),
        }
    return {
        **padded(request_tokens(tokenizers, settings, raw), settings.length),
        'tokens': np.array([tokenizers.start], np.int32),
        'length': np.int32(1),
    }


def encode_packed(raw: Mapping[str, Any], length: int, start: int) -> dict[str, np.ndarray]:
    """Returns the arrays of a packed row; the decoder reads every target behind the token `start`."""
    source, source_segments = pack(raw['sources'], length)
    targets, segments = pack(raw['targets'], length)
    tokens, _ = pack([np.concatenate([[start], text[:-1]]) for text in raw['targets']], length)
    return {
        'source': source, 'source_segments': source_segments,
        'tokens': tokens, 'targets': targets, 'segments': segments,
    }  # fmt: skip


def padded(source: Sequence[int], length: int) -> dict[str, np.ndarray]:
    """Returns 'source' [length] and 'source_length'."""
    return {'source': pack([np.asarray(source)], length)[0], 'source_length': np.int32(len(source))}


def request_tokens(tokenizers: Tokenizers, settings: Settings, raw: Mapping[str, Any]) -> list[int]:
    """Returns the tokens of a request's source, its end included."""
    text = raw.get('source')
    if not isinstance(text, str):
        raise UserError("the request has no 'source', or it is not a string")
    if not text.strip():
        raise UserError("the request's 'source' is empty: give a text to translate")
    limit = text_limit(tokenizers.source, settings)
    if len(text) > limit:
        raise UserError(f"the request's 'source' has {len(text)} characters; {settings.length} tokens hold {limit}")
    tokens = tokenizers.encode_source(text.strip())
    if len(tokens) > settings.length:
        raise UserError(
            f"the request's 'source' has {len(tokens)} tokens with its end; the model reads "
            f'{settings.length}: shorten it, or give its sentences one by one'
        )
    return tokens


def text_limit(tokenizer: Tokenizer, settings: Settings) -> int:
    """Returns the most characters that the tokens of a source could hold."""
    return settings.length * max(map(len, tokenizer.get_vocab()))


def make_generate(model: EncoderDecoder, first: int, end: int) -> Generate:
    """Returns generation with a cache; a prompt is an encoded request, its 'tokens' begin the target.

    The `first` of them, where it is not also the `end`, is never written.
    """

    def start(variables, prompts, capacity):
        params = {'params': variables.params['model']}
        memory = model.apply(params, prompts['source'], prompts['source_length'], method='encode')
        cache = model.apply(params, memory, prompts['source_length'], capacity, method='start_cache')
        tokens, length = jnp.asarray(prompts['tokens']), jnp.asarray(prompts['length'])

        def read(column, cache):
            further, _ = step(variables, cache, tokens[:, column])
            inside = column < length - 1  # the last token is read by the first step
            return jax.tree.map(
                lambda new, old: jnp.where(inside.reshape(-1, *[1] * (new.ndim - 1)), new, old), further, cache
            )

        return jax.lax.fori_loop(0, tokens.shape[1] - 1, read, cache)

    def step(variables, cache, tokens):
        cache, logits = model.apply({'params': variables.params['model']}, cache, tokens, method='step')
        return cache, logits if first == end else logits.at[:, first].set(-jnp.inf)

    return Generate(start, step, end, model.settings.length)


def apply(model: EncoderDecoder, variables: Variables, batch: Mapping[str, Any], context: Context) -> jax.Array:
    """Returns the logits of packed rows or of pairs, with dropout in training."""
    module = model.clone(train=context.train)
    rngs = {'dropout': context.fold('dropout')} if context.train else None
    return module.apply(
        {'params': variables.params['model']}, batch['source'], batch.get('source_length'), batch['tokens'],
        batch.get('length'), batch.get('source_segments'), batch.get('segments'), rngs=rngs,
    )  # fmt: skip


def token_mask(batch: Mapping[str, Any]) -> jax.Array:
    """Returns 1.0 for every target token that counts, float32 [batch, length]."""
    if 'segments' in batch:
        inside = batch['segments'] > 0
    else:
        inside = jnp.arange(batch['tokens'].shape[1]) < batch['length'][:, None]
    return inside * batch['mask'][:, None]


def make_loss(model: EncoderDecoder, smoothing: float) -> Callable:
    """Returns the loss: the sum of smoothed cross-entropies, in nats, over target tokens, which are its weight."""

    def loss(variables, batch, context):
        logits = apply(model, variables, batch, context)
        mask = token_mask(batch)
        values = softmax_cross_entropy(logits, batch['targets'], smoothing) * mask
        correct = (jnp.argmax(logits, axis=-1) == batch['targets']) * mask
        aux = Aux(jnp.sum(mask), logs={'accuracy': jnp.sum(correct)}, outputs={'logits': logits})
        return jnp.sum(values), aux

    return loss


def make_predict(generate: Generate, settings: Settings, start: int) -> Callable:
    """Returns `predict`: the best translation of each source, of a packed row's first."""

    def predict(variables, batch, context):
        del context  # nothing is drawn
        if 'source_segments' in batch:
            length = jnp.sum(batch['source_segments'] == 1, axis=1)
        else:
            length = batch['source_length']
        ones = jnp.ones_like(length)
        prompts = {
            'source': batch['source'], 'source_length': length,
            'tokens': ones[:, None] * start, 'length': ones,
        }  # fmt: skip
        found = beam_search(generate, variables, prompts, settings.length, settings.beams, settings.length_penalty)
        return {
            'source': batch['source'], 'source_length': length,
            'tokens': found.tokens[:, 0], 'length': found.length[:, 0],
        }  # fmt: skip

    return predict


def make_metric_sums(model: EncoderDecoder, counts: np.ndarray) -> Callable:
    """Returns `metric_sums`: sums over target tokens for the model and for a unigram model of the training targets."""
    smoothed = counts.astype(np.float64) + 1  # so that a token never seen is not impossible
    unigram = -np.log(smoothed / smoothed.sum()).astype(np.float32)
    commonest = int(np.argmax(counts))

    def metric_sums(variables, batch, context):
        logits = apply(model, variables, batch, context._replace(train=False))
        targets, mask = batch['targets'], token_mask(batch)
        return {
            'nll': jnp.sum(softmax_cross_entropy(logits, targets) * mask),
            'tokens': jnp.sum(mask),
            'correct': jnp.sum((jnp.argmax(logits, axis=-1) == targets) * mask),
            'unigram_nll': jnp.sum(jnp.asarray(unigram)[targets] * mask),
            'unigram_correct': jnp.sum((targets == commonest) * mask),
        }

    return metric_sums


def metrics(sums: Mapping[str, np.ndarray]) -> dict[str, Metric]:
    """Returns loss, perplexity and accuracy, beside those of the training targets' unigrams."""
    values = {name: float(value) for name, value in sums.items()}
    tokens = max(values['tokens'], 1.0)
    nll, unigram = values['nll'] / tokens, values['unigram_nll'] / tokens
    about = 'unigrams of the training targets'
    return {
        'loss': Metric(nll, unigram, 'lower', 'cross-entropy per target token, nats, not smoothed', about),
        'perplexity': Metric(power(nll), power(unigram), 'lower', 'per token', about),
        'accuracy': Metric(
            values['correct'] / tokens, values['unigram_correct'] / tokens, 'higher',
            'next token the likeliest, the reference before it known', 'always the commonest token',
        ),
    }  # fmt: skip


def power(value: float) -> float:
    """Returns e ** value, or infinity where a float cannot hold it."""
    return math.exp(value) if value < 700 else math.inf


def make_decode(tokenizers: Tokenizers) -> Callable:
    """Returns `decode`: the source and its translation as text."""

    prefix = encode_text(tokenizers.source, tokenizers.prefix)
    prefix = tokenizers.source.decode(prefix, skip_special_tokens=True).strip()  # as far as the tokenizer knows it

    def text(tokenizer, tokens, length):
        return tokenizer.decode(np.asarray(tokens)[: int(length)].tolist(), skip_special_tokens=True)

    def decode(outputs):
        source = text(tokenizers.source, outputs['source'], outputs['source_length'])
        return {
            'source': source.removeprefix(prefix).lstrip() if prefix else source,
            'text': text(tokenizers.target, outputs['tokens'], outputs['length']),
        }

    return decode


def make_finalize(settings: Settings) -> Callable:
    """Returns the scores of all translations together; packed rows have no reference of their own."""

    def finalize(pairs: Iterator[tuple[Mapping[str, Any], Any]]) -> dict[str, Metric]:
        found = [(raw['source'], raw['target'], decoded['text']) for raw, decoded in pairs if 'target' in raw]
        if not found:
            return {}
        sources, references, translations = zip(*found, strict=True)
        scores = translation_scores(translations, references, settings.bleu_tokenizer)
        copied = translation_scores(sources, references, settings.bleu_tokenizer)
        search = f'beam {settings.beams}, length penalty {settings.length_penalty:g}'
        found = {}
        for name, (score, signature) in scores.items():
            about = f'{SCORES[name]}, {search}: {signature}'
            found[name] = Metric(score, copied[name][0], 'higher', about, 'the source itself')
        return found

    return finalize


def plan_notes(plan: Mapping[str, Any], settings: Settings) -> list[str]:
    """Returns what the plan says of the rows, as sentences."""
    pairs = plan['pairs']['train'] - plan['empty'] - plan['too_long']
    notes = [
        f'{pairs:,} training pairs are packed into {plan["rows"]:,} rows of {settings.row_length} tokens a side; '
        f'{plan["padding"]:.1%} of the tokens are padding; batch sizes and methods count packed rows, not pairs'
    ]
    if plan['empty'] or plan['too_long']:
        notes.append(
            f'{plan["too_long"]:,} training pairs longer than {settings.length} tokens and {plan["empty"]:,} that are '
            'empty on a side are left out'
        )
    cut = ', '.join(f'{count:,} of {split}' for split, count in plan['cut'].items() if count)
    return notes + ([f'cut to {settings.length} tokens on a side: {cut} pairs'] if cut else [])


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; `config.model` is the Transformer's shape, or names pretrained weights.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    settings, _ = settings_of(config), open_pairs(config)  # both checked
    model = EncoderDecoder(read_shape(config, settings, folder))
    tokenizers = read_tokenizers(config, settings, folder)
    counts = load_array(folder / 'counts.npy')
    plan = json.loads((folder / 'plan.json').read_text())
    generate = make_generate(model, tokenizers.start, tokenizers.end)

    def init(key):
        tokens = jnp.zeros((1, 1), jnp.int32)
        params, _ = initialize(model, key, tokens, None, tokens)
        return Variables({'model': params}, {})

    about = f'a text to translate, at most {settings.length} tokens with its end'
    return Task(
        inputs={'source': Input('text', limit=text_limit(tokenizers.source, settings), about=about)},
        source=functools.cache(functools.partial(read_rows, folder)),
        encode=functools.partial(encode, tokenizers, settings),
        init=init,
        load=pretrained.make_load(config.model, folder),
        losses={'model': make_loss(model, settings.label_smoothing)},
        predict=make_predict(generate, settings, tokenizers.start),
        metric_sums=make_metric_sums(model, counts),
        metrics=metrics,
        decode=make_decode(tokenizers),
        generate=generate,
        finalize=make_finalize(settings),
        finalize_count=settings.score_count,
        examples=[{'source': text} for text in settings.examples],
        notes=lambda: plan_notes(plan, settings),
    )
