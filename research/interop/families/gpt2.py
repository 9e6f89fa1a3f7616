"""GPT-2: a pre-norm decoder with learned positions (Radford et al. 2019)."""

from research.interop.names import Family, Rule, activation, activation_of, norm, only, table


def settings_of(config, names):
    """Fields of `TransformerSettings`."""
    only(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    return {
        'vocabulary': config['vocab_size'],
        'length': config['n_positions'],
        'width': config['n_embd'],
        'layers': config['n_layer'],
        'heads': config['n_head'],
        'hidden_width': config.get('n_inner') or 4 * config['n_embd'],
        'norm': 'layer',
        'norm_position': 'pre',
        'norm_epsilon': config.get('layer_norm_epsilon', 1e-5),
        'activation': activation(config, 'activation_function'),
        'positions': 'learned',
        'query_key_value_bias': True,
        'output_bias': True,
        'feed_forward_bias': True,
        'tie_embedding': config.get('tie_word_embeddings', True),
        'dropout': config.get('resid_pdrop', 0.1),
        'embedding_dropout': config.get('embd_pdrop', 0.1),
        'attention_dropout': config.get('attn_pdrop', 0.1),
        'initializer': 'normal',
        'initial_scale': config.get('initializer_range', 0.02),
    }


def config_of(settings):
    """config.json of the settings."""
    return {
        'vocab_size': settings.vocabulary,
        'n_positions': settings.length,
        'n_embd': settings.width,
        'n_layer': settings.layers,
        'n_head': settings.heads,
        'n_inner': settings.width_of_hidden,
        'activation_function': activation_of(settings),
        'layer_norm_epsilon': settings.norm_epsilon,
        'resid_pdrop': settings.dropout,
        'embd_pdrop': settings.embedding_dropout,
        'attn_pdrop': settings.attention_dropout,
        'initializer_range': settings.initial_scale,
        'tie_word_embeddings': settings.tie_embedding,
    }


def both(name, *paths):
    """Rules of kernel and bias; GPT-2 stores kernels as [inputs, outputs], like we do."""
    return [
        Rule(f'{name}.weight', tuple(f'{path}/kernel' for path in paths)),
        Rule(f'{name}.bias', tuple(f'{path}/bias' for path in paths)),
    ]


def rules(settings):
    """Rules of GPT-2."""
    attention = 'blocks/attention'
    body = [
        table('wte', 'tokens'),
        table('wpe', 'positions'),
        *norm('h.{}.ln_1', 'blocks/attention_norm'),
        *both('h.{}.attn.c_attn', f'{attention}/query', f'{attention}/key', f'{attention}/value'),
        *both('h.{}.attn.c_proj', f'{attention}/out'),
        *norm('h.{}.ln_2', 'blocks/feed_forward_norm'),
        *both('h.{}.mlp.c_fc', 'blocks/feed_forward/up'),
        *both('h.{}.mlp.c_proj', 'blocks/feed_forward/down'),
        *norm('ln_f', 'final_norm'),
    ]
    return body + ([] if settings.tie_embedding else [Rule('lm_head.weight', ('head/kernel',), 'transposed')])


GPT2 = Family(
    'gpt2', settings_of, config_of, rules, 'transformer.',
    ('h.*.attn.bias', 'h.*.attn.masked_bias', 'lm_head.weight', 'score.weight'),
)  # fmt: skip
