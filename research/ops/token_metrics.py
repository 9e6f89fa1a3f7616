"""Metrics of token prediction: masked sums on the device, metrics and a unigram baseline on the host."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from research.ops.classification import MetricRow
from research.ops.losses import softmax_cross_entropy

UNIGRAMS = 'unigrams of the training split'


class Unigrams(NamedTuple):
    """A unigram model of the training split: nats of each token, and the most frequent token."""

    nats: Float[np.ndarray, 'vocabulary']
    commonest: int


def unigrams(counts: np.ndarray) -> Unigrams:
    """Fits a unigram model to token counts, with add-one smoothing."""
    smooth = np.asarray(counts, np.float64) + 1
    return Unigrams(-np.log(smooth / smooth.sum()).astype(np.float32), int(np.argmax(counts)))


def token_sums(
    logits: Float[Array, 'batch length vocabulary'],
    targets: Int[Array, 'batch length'],
    mask: Float[Array, 'batch length'],
    model: Unigrams,
) -> dict[str, Array]:
    """Computes sums over the tokens whose mask is 1, for the model and for unigrams."""
    return {
        'nll': jnp.sum(softmax_cross_entropy(logits, targets) * mask),
        'tokens': jnp.sum(mask),
        'correct': jnp.sum((jnp.argmax(logits, axis=-1) == targets) * mask),
        'unigram_nll': jnp.sum(jnp.asarray(model.nats)[targets] * mask),
        'unigram_correct': jnp.sum((targets == model.commonest) * mask),
    }


def token_metrics(sums: Mapping[str, np.ndarray], token_name: str) -> dict[str, MetricRow]:
    """Computes loss, perplexity and accuracy with unigram baselines, and bits per byte if `sums` has 'bytes'.

    `token_name` describes the counted tokens, as in 'masked token'.
    """
    values = {name: float(value) for name, value in sums.items()}
    tokens = max(values['tokens'], 1.0)
    nll, unigram = values['nll'] / tokens, values['unigram_nll'] / tokens
    metrics = {
        'loss': MetricRow(nll, unigram, 'lower', f'cross-entropy per {token_name}, nats', UNIGRAMS),
        'perplexity': MetricRow(power(nll), power(unigram), 'lower', f'per {token_name}', UNIGRAMS),
    }
    if 'bytes' in values:
        bits = math.log(2) * max(values['bytes'], 1.0)
        shares = values['nll'] / bits, values['unigram_nll'] / bits
        metrics['bits_per_byte'] = MetricRow(*shares, 'lower', 'of text, including end tokens', UNIGRAMS)
    metrics['accuracy'] = MetricRow(
        values['correct'] / tokens, values['unigram_correct'] / tokens, 'higher',
        f'share of correct predictions, per {token_name}',
        'always the commonest token',
    )  # fmt: skip
    return metrics


def power(value: float) -> float:
    """Computes e ** value, or infinity on overflow."""
    return math.exp(value) if value < 700 else math.inf
