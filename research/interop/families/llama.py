"""Llama, Mistral, Qwen2 and Qwen3: pre-norm decoders with rotary positions, SwiGLU and grouped heads.

Touvron et al. 2023 (arXiv:2307.09288), Grattafiori et al. 2024 (arXiv:2407.21783), Jiang et al. 2023
(arXiv:2310.06825), Yang et al. 2024 (arXiv:2407.10671) and 2025 (arXiv:2505.09388).
"""

from research.errors import UserError
from research.interop.names import Family, Rule, activation, activation_of, heads, linear, norm, only, table

PROJECTIONS = ('q_proj', 'k_proj', 'v_proj', 'o_proj')


def shared_settings(config, names):
    """Fields of `TransformerSettings` shared by all these families."""
    only(config, pretraining_tp=1, mlp_bias=False)
    return {
        'vocabulary': config['vocab_size'],
        'length': config['max_position_embeddings'],
        'width': config['hidden_size'],
        'layers': config['num_hidden_layers'],
        'heads': config['num_attention_heads'],
        'key_value_heads': config.get('num_key_value_heads') or config['num_attention_heads'],
        'head_width': config.get('head_dim') or config['hidden_size'] // config['num_attention_heads'],
        'hidden_width': config['intermediate_size'],
        'norm': 'rms',
        'norm_position': 'pre',
        'norm_epsilon': config.get('rms_norm_eps', 1e-6),
        'activation': activation(config, 'hidden_act'),
        'gated': True,
        'positions': 'rotary',
        **rotary_settings(config),
        'tie_embedding': config.get('tie_word_embeddings', False),
        'attention_dropout': config.get('attention_dropout', 0.0),
        'initializer': 'normal',
        'initial_scale': config.get('initializer_range', 0.02),
    }


def rotary_settings(config):
    """Base and scaling of the rotary positions, in the old and the new format."""
    given = {**(config.get('rope_scaling') or {}), **(config.get('rope_parameters') or {})}
    scaling = given.get('rope_type', given.get('type', 'default'))
    base = {'rotary_base': float(given.get('rope_theta', config.get('rope_theta', 10000.0)))}
    if scaling == 'default':
        return base
    if scaling != 'llama3':
        raise UserError(f"config.json: rotary positions of type {scaling!r} are not supported, only 'llama3'")
    return {
        **base,
        'rotary_length': given['original_max_position_embeddings'],
        'rotary_factor': float(given['factor']),
        'rotary_low': float(given['low_freq_factor']),
        'rotary_high': float(given['high_freq_factor']),
    }


def llama_settings(config, names):
    bias = bool(config.get('attention_bias', False))
    return {**shared_settings(config, names), 'query_key_value_bias': bias, 'output_bias': bias}


def mistral_settings(config, names):
    return {**shared_settings(config, names), 'window': config.get('sliding_window') or 0}


def qwen2_settings(config, names):
    return {**shared_settings(config, names), 'query_key_value_bias': True, **windows(config)}


def qwen3_settings(config, names):
    bias = bool(config.get('attention_bias', False))
    given = {**shared_settings(config, names), 'qk_norm': True, **windows(config)}
    return {**given, 'query_key_value_bias': bias, 'output_bias': bias}


def windows(config):
    """Attention window of each layer of Qwen; the first `max_window_layers` have full attention."""
    window, layers = config.get('sliding_window') or 0, config['num_hidden_layers']
    if not (config.get('use_sliding_window') and window):
        return {}
    dense = config.get('max_window_layers', layers)
    kinds = config.get('layer_types') or ['full_attention'] * dense + ['sliding_attention'] * (layers - dense)
    return {'windows': tuple(window if kind == 'sliding_attention' else 0 for kind in kinds[:layers])}


def config_of(settings):
    """config.json of the settings."""
    rotary = {'rope_theta': settings.rotary_base, 'rope_type': 'default'}
    if settings.rotary_length:
        rotary.update(
            rope_type='llama3',
            original_max_position_embeddings=settings.rotary_length,
            factor=settings.rotary_factor,
            low_freq_factor=settings.rotary_low,
            high_freq_factor=settings.rotary_high,
        )
    return {
        'vocab_size': settings.vocabulary,
        'max_position_embeddings': settings.length,
        'hidden_size': settings.width,
        'num_hidden_layers': settings.layers,
        'num_attention_heads': settings.heads,
        'num_key_value_heads': settings.key_heads,
        'head_dim': settings.width_of_head,
        'intermediate_size': settings.width_of_hidden,
        'rms_norm_eps': settings.norm_epsilon,
        'hidden_act': activation_of(settings),
        'rope_theta': settings.rotary_base,
        'rope_parameters': rotary,
        'tie_word_embeddings': settings.tie_embedding,
        'attention_dropout': settings.attention_dropout,
        'initializer_range': settings.initial_scale,
    }


def biased_config(settings):
    """config.json of Llama, where biases are optional."""
    return {**config_of(settings), 'attention_bias': settings.output_bias}


def windowed_config(settings):
    """config.json of Qwen2 and Qwen3, where some layers may have a window."""
    if not settings.windows:
        return {**config_of(settings), 'use_sliding_window': False}
    kinds = ['sliding_attention' if window else 'full_attention' for window in settings.windows]
    window = max(settings.windows)
    return {**config_of(settings), 'use_sliding_window': True, 'sliding_window': window, 'layer_types': kinds}


def qwen3_config(settings):
    return {**windowed_config(settings), 'attention_bias': settings.output_bias}


def mistral_config(settings):
    return {**config_of(settings), 'sliding_window': settings.window or None}


def rules(settings):
    """Rules of all these families."""
    layer, biases = 'layers.{}', (settings.query_key_value_bias, settings.output_bias)
    shared = [
        table('embed_tokens', 'tokens'),
        *norm(f'{layer}.input_layernorm', 'blocks/attention_norm', False),
        *heads(f'{layer}.self_attn', 'blocks/attention', PROJECTIONS, *biases),
        *norm(f'{layer}.post_attention_layernorm', 'blocks/feed_forward_norm', False),
        *linear(f'{layer}.mlp.gate_proj', 'blocks/feed_forward/gate', False),
        *linear(f'{layer}.mlp.up_proj', 'blocks/feed_forward/up', False),
        *linear(f'{layer}.mlp.down_proj', 'blocks/feed_forward/down', False),
        *norm('norm', 'final_norm', False),
    ]
    if settings.qk_norm:
        shared += norm(f'{layer}.self_attn.q_norm', 'blocks/attention/query_norm', False)
        shared += norm(f'{layer}.self_attn.k_norm', 'blocks/attention/key_norm', False)
    return shared + ([] if settings.tie_embedding else [Rule('lm_head.weight', ('head/kernel',), 'transposed')])


UNUSED = ('layers.*.self_attn.rotary_emb.inv_freq', 'lm_head.weight')
LLAMA = Family('llama', llama_settings, biased_config, rules, 'model.', UNUSED)
MISTRAL = Family('mistral', mistral_settings, mistral_config, rules, 'model.', UNUSED)
QWEN2 = Family('qwen2', qwen2_settings, windowed_config, rules, 'model.', UNUSED)
QWEN3 = Family('qwen3', qwen3_settings, qwen3_config, rules, 'model.', UNUSED)
