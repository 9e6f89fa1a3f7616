"""Marian (OPUS-MT): the post-norm encoder-decoder of 2017 with sinusoidal positions.

Junczys-Dowmunt et al. 2018 (arXiv:1804.00344), Vaswani et al. 2017 (arXiv:1706.03762).
"""

from research.errors import UserError
from research.interop.names import Family, Rule, activation, activation_of, heads, linear, norm, only, table

PROJECTIONS = ('q_proj', 'k_proj', 'v_proj', 'out_proj')
SIDES = ('attention_heads', 'ffn_dim')


def settings_of(config, names):
    """Fields of `TransformerSettings`."""
    only(config, normalize_before=False, normalize_embedding=False, static_position_embeddings=True)
    only(config, share_encoder_decoder_embeddings=True, tie_word_embeddings=True, add_final_layer_norm=False)
    for side in SIDES:
        if config[f'encoder_{side}'] != config[f'decoder_{side}']:
            raise UserError(f'config.json: encoder_{side} and decoder_{side} differ, which is not supported')
    return {
        'vocabulary': config['vocab_size'],
        'length': config['max_position_embeddings'],
        'width': config['d_model'],
        'layers': config['encoder_layers'],
        'decoder_layers': config['decoder_layers'],
        'heads': config['encoder_attention_heads'],
        'hidden_width': config['encoder_ffn_dim'],
        'norm': 'layer',
        'norm_position': 'post',
        'norm_epsilon': 1e-5,
        'activation': activation(config, 'activation_function'),
        'positions': 'halves',
        'embedding_scale': config.get('scale_embedding', False),
        'query_key_value_bias': True,
        'output_bias': True,
        'feed_forward_bias': True,
        'tie_embedding': True,
        'head_bias': True,
        'dropout': config.get('dropout', 0.1),
        'embedding_dropout': config.get('dropout', 0.1),
        'attention_dropout': config.get('attention_dropout', 0.0),
        'hidden_dropout': config.get('activation_dropout', 0.0),
        'initializer': 'normal',
        'initial_scale': config.get('init_std', 0.02),
    }


def config_of(settings):
    """config.json of the settings."""
    sides = {'attention_heads': settings.heads, 'ffn_dim': settings.width_of_hidden}
    return {
        'vocab_size': settings.vocabulary,
        'decoder_vocab_size': settings.vocabulary,
        'max_position_embeddings': settings.length,
        'd_model': settings.width,
        'encoder_layers': settings.layers,
        'decoder_layers': settings.decoder.layers,
        **{f'{side}_{name}': value for side in ('encoder', 'decoder') for name, value in sides.items()},
        'activation_function': activation_of(settings),
        'scale_embedding': settings.embedding_scale,
        'dropout': settings.dropout,
        'attention_dropout': settings.attention_dropout,
        'activation_dropout': settings.hidden_dropout,
        'init_std': settings.initial_scale,
        'is_encoder_decoder': True,
    }


def stack_rules(name, cross):
    """Rules of the encoder, or of the decoder, which has cross-attention."""
    layer, block = f'{name}.layers.{{}}', f'{name}/blocks'
    rules = [
        *heads(f'{layer}.self_attn', f'{block}/attention', PROJECTIONS, True, True),
        *norm(f'{layer}.self_attn_layer_norm', f'{block}/attention_norm'),
        *linear(f'{layer}.fc1', f'{block}/feed_forward/up'),
        *linear(f'{layer}.fc2', f'{block}/feed_forward/down'),
        *norm(f'{layer}.final_layer_norm', f'{block}/feed_forward_norm'),
    ]
    if cross:
        rules += heads(f'{layer}.encoder_attn', f'{block}/cross', PROJECTIONS, True, True)
        rules += norm(f'{layer}.encoder_attn_layer_norm', f'{block}/cross_norm')
    return rules


def rules(settings):
    shared = [table('shared', 'tokens'), Rule('final_logits_bias', ('head/bias',), 'row')]
    return shared + stack_rules('encoder', False) + stack_rules('decoder', True)


MARIAN = Family(
    'marian', settings_of, config_of, rules, 'model.',
    ('*coder.embed_tokens.weight', '*coder.embed_positions.weight', 'lm_head.weight'), True,
)  # fmt: skip
