"""How well tokens are predicted: masked sums on the device, metrics beside a unigram model on the host."""

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
    """A model that knows only how often each token occurs in training: nats of each, and the commonest."""

    nats: Float[np.ndarray, 'vocabulary']
    commonest: int


def unigrams(counts: np.ndarray) -> Unigrams:
    """Returns the unigram model of token counts; one more of each, so that no token is impossible."""
    smooth = np.asarray(counts, np.float64) + 1
    return Unigrams(-np.log(smooth / smooth.sum()).astype(np.float32), int(np.argmax(counts)))


def token_sums(
    logits: Float[Array, 'batch length vocabulary'],
    targets: Int[Array, 'batch length'],
    mask: Float[Array, 'batch length'],
    model: Unigrams,
) -> dict[str, Array]:
    """Returns sums over the tokens whose mask is 1, for the model and for unigrams."""
    return {
        'nll': jnp.sum(softmax_cross_entropy(logits, targets) * mask),
        'tokens': jnp.sum(mask),
        'correct': jnp.sum((jnp.argmax(logits, axis=-1) == targets) * mask),
        'unigram_nll': jnp.sum(jnp.asarray(model.nats)[targets] * mask),
        'unigram_correct': jnp.sum((targets == model.commonest) * mask),
    }


def token_metrics(sums: Mapping[str, np.ndarray], what: str) -> dict[str, MetricRow]:
    """Returns loss and perplexity per token and accuracy beside those of unigrams, and bits per byte of 'bytes'.

    `what` names the tokens that are counted, as in 'masked token'.
    """
    values = {name: float(value) for name, value in sums.items()}
    tokens = max(values['tokens'], 1.0)
    nll, unigram = values['nll'] / tokens, values['unigram_nll'] / tokens
    found = {
        'loss': MetricRow(nll, unigram, 'lower', f'cross-entropy per {what}, nats', UNIGRAMS),
        'perplexity': MetricRow(power(nll), power(unigram), 'lower', f'per {what}', UNIGRAMS),
    }
    if 'bytes' in values:
        bits = math.log(2) * max(values['bytes'], 1.0)
        shares = values['nll'] / bits, values['unigram_nll'] / bits
        found['bits_per_byte'] = MetricRow(*shares, 'lower', 'of text, its ends included', UNIGRAMS)
    found['accuracy'] = MetricRow(
        values['correct'] / tokens, values['unigram_correct'] / tokens, 'higher', f'{what} the likeliest',
        'always the commonest token',
    )  # fmt: skip
    return found


def power(value: float) -> float:
    """Returns e ** value, or infinity where a float cannot hold it."""
    return math.exp(value) if value < 700 else math.inf
