"""T5, version 1.0 and 1.1: pre-norm encoder-decoders with relative position biases.

Raffel et al. 2020 (arXiv:1910.10683); gated feed-forward layers: Shazeer 2020 (arXiv:2002.05202).
"""

from research.interop.names import Family, Rule, activation, activation_of, heads, linear, norm, table

DEFAULT_LENGTH = 512  # positions in training; T5 has no limit
PARTS = ('q', 'k', 'v', 'o')


def settings_of(config, names):
    """Fields of `TransformerSettings`."""
    form, _, word = config.get('feed_forward_proj', 'relu').rpartition('-')
    # 'gated-gelu' has always meant the tanh approximation
    word = 'gelu_new' if (form, word) == ('gated', 'gelu') else word
    scaled = config.get('scale_decoder_outputs', config.get('tie_word_embeddings', True))  # version 1.0
    dropout = config.get('dropout_rate', 0.1)
    return {
        'vocabulary': config['vocab_size'],
        'length': config.get('n_positions', DEFAULT_LENGTH),
        'width': config['d_model'],
        'layers': config['num_layers'],
        'decoder_layers': config.get('num_decoder_layers') or config['num_layers'],
        'heads': config['num_heads'],
        'head_width': config['d_kv'],
        'hidden_width': config['d_ff'],
        'norm': 'rms',
        'norm_position': 'pre',
        'norm_epsilon': config.get('layer_norm_epsilon', 1e-6),
        'activation': activation({'feed_forward_proj': word}, 'feed_forward_proj'),
        'gated': form == 'gated',
        'positions': 'relative',
        'relative_buckets': config.get('relative_attention_num_buckets', 32),
        'relative_distance': config.get('relative_attention_max_distance', 128),
        'attention_scale': False,
        'tie_embedding': scaled or 'lm_head.weight' not in names,
        'head_scale': scaled,
        'initial_scale': 1.0,
        **dict.fromkeys(
            ('dropout', 'embedding_dropout', 'attention_dropout', 'hidden_dropout', 'output_dropout'), dropout
        ),
    }


def config_of(settings):
    """config.json of the settings."""
    word = activation_of(settings)
    if settings.gated:
        word = 'gated-gelu' if settings.activation == 'gelu_tanh' else f'gated-{word}'
    return {
        'vocab_size': settings.vocabulary,
        'n_positions': settings.length,
        'd_model': settings.width,
        'd_kv': settings.width_of_head,
        'd_ff': settings.width_of_hidden,
        'num_layers': settings.layers,
        'num_decoder_layers': settings.decoder.layers,
        'num_heads': settings.heads,
        'relative_attention_num_buckets': settings.relative_buckets,
        'relative_attention_max_distance': settings.relative_distance,
        'dropout_rate': settings.dropout,
        'layer_norm_epsilon': settings.norm_epsilon,
        'feed_forward_proj': word,
        'scale_decoder_outputs': settings.head_scale,
        'tie_word_embeddings': settings.tie_embedding,
        'is_encoder_decoder': True,
    }


def stack_rules(settings, name, cross):
    """Rules of the encoder, or of the decoder, which has cross-attention."""
    layer, block = f'{name}.block.{{}}.layer', f'{name}/blocks'
    rules = [
        Rule(
            f'{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight', (f'{name}/relative/embedding',)
        ),
        *norm(f'{layer}.0.layer_norm', f'{block}/attention_norm', False),
        *heads(f'{layer}.0.SelfAttention', f'{block}/attention', PARTS, False, False),
    ]
    if cross:
        rules += norm(f'{layer}.1.layer_norm', f'{block}/cross_norm', False)
        rules += heads(f'{layer}.1.EncDecAttention', f'{block}/cross', PARTS, False, False)
    last, feed = (2 if cross else 1), f'{block}/feed_forward'
    rules += norm(f'{layer}.{last}.layer_norm', f'{feed}_norm', False)
    ups = {'wi_0': 'gate', 'wi_1': 'up'} if settings.gated else {'wi': 'up'}
    for theirs, ours in {**ups, 'wo': 'down'}.items():
        rules += linear(f'{layer}.{last}.DenseReluDense.{theirs}', f'{feed}/{ours}', False)
    return rules + norm(f'{name}.final_layer_norm', f'{name}/final_norm', False)


def rules(settings):
    """Rules of T5."""
    shared = [
        table('shared', 'tokens'),
        *stack_rules(settings, 'encoder', False),
        *stack_rules(settings, 'decoder', True),
    ]
    return shared + ([] if settings.tie_embedding else [Rule('lm_head.weight', ('head/kernel',), 'transposed')])


T5 = Family(
    't5', settings_of, config_of, rules, '',
    (
        '*coder.embed_tokens.weight', 'lm_head.weight',
        'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight',
    ),
    True,
)  # fmt: skip
