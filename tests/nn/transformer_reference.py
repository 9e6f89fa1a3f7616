"""The decoder-only Transformer in float64, feature by feature as the papers write it: slow, and independent."""

from typing import Any

import jax
import numpy as np

from research.nn.transformer_settings import TransformerSettings


def reference(settings: TransformerSettings, params: Any, tokens: np.ndarray) -> np.ndarray:
    """Returns the logits of one text."""
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    x = embed(settings, params, tokens)
    for index in range(settings.layers):
        layer = jax.tree.map(lambda leaf, index=index: leaf[index], params['blocks'])
        window = settings.windows[index % len(settings.windows)] if settings.windows else settings.window
        x = block(settings, x, layer, window)
    if settings.norm_position == 'pre':
        x = norm(settings, x, params['final_norm'], settings.norm)
    kernel = params['tokens']['embedding'].T if settings.tie_embedding else params['head']['kernel']
    return x @ kernel + params.get('head', {}).get('bias', 0.0)


def embed(settings, params, tokens):
    x, length = params['tokens']['embedding'][tokens], len(tokens)
    if settings.positions == 'learned':
        x = x * np.sqrt(settings.width) if settings.embedding_scale else x
        return x + params['positions']['embedding'][settings.position_offset :][:length]
    if settings.positions == 'sinusoidal':
        for i in range(length):
            for j in range(settings.width):
                angle = i / 10000 ** (j // 2 * 2 / settings.width)
                x[i, j] += np.cos(angle) if j % 2 else np.sin(angle)
    return x


def block(settings, x, layer, window):
    def first(value):
        return norm(settings, value, layer['attention_norm'], settings.norm)

    def second(value):
        return norm(settings, value, layer['feed_forward_norm'], settings.norm)

    if settings.norm_position == 'pre':
        x = x + attend(settings, first(x), layer['attention'], window)
        return x + feed(settings, second(x), layer['feed_forward'])
    x = first(x + attend(settings, x, layer['attention'], window))
    return second(x + feed(settings, x, layer['feed_forward']))


def norm(settings, x, layer, kind):
    if kind == 'rms':
        return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + settings.norm_epsilon) * layer['scale']
    deviation = np.sqrt(np.var(x, -1, keepdims=True) + settings.norm_epsilon)
    return (x - x.mean(-1, keepdims=True)) / deviation * layer['scale'] + layer['bias']


def linear(x, layer):
    return x @ layer['kernel'] + layer.get('bias', 0.0)


def rotary(settings, x, position):
    width, turned = len(x), x.copy()
    half = width // 2
    for i in range(half):
        angle = position * settings.rotary_base ** (-2 * i / width)
        turned[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
        turned[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
    return turned


def attend(settings, x, layer, window):
    length, width, heads = len(x), settings.width_of_head, {}
    for name in ('query', 'key', 'value'):
        count = settings.heads if name == 'query' else settings.key_heads
        heads[name] = linear(x, layer[name]).reshape(length, count, width)
        if settings.qk_norm and name != 'value':
            heads[name] = norm(settings, heads[name], layer[name + '_norm'], 'rms')
        if settings.positions == 'rotary' and name != 'value':
            rows = [[rotary(settings, head, i) for head in row] for i, row in enumerate(heads[name])]
            heads[name] = np.array(rows)
    output = np.zeros((length, settings.heads, width))
    for head in range(settings.heads):
        other = head * settings.key_heads // settings.heads
        for i in range(length):
            first = max(0, i - window + 1) if window else 0
            logits = heads['key'][first : i + 1, other] @ heads['query'][i, head] / np.sqrt(width)
            weights = np.exp(logits - logits.max())
            output[i, head] = weights / weights.sum() @ heads['value'][first : i + 1, other]
    return linear(output.reshape(length, -1), layer['out'])


def feed(settings, x, layer):
    up = linear(x, layer['up'])
    up = activation(settings, linear(x, layer['gate'])) * up if settings.gated else activation(settings, up)
    return linear(up, layer['down'])


def activation(settings, x):
    tanh = np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))
    values = {'silu': x / (1 + np.exp(-x)), 'relu': np.maximum(x, 0), 'gelu_tanh': x * (1 + tanh) / 2}
    return values[settings.activation]
