"""ViT: a pre-norm encoder of patches with learned positions (Dosovitskiy et al. 2021, arXiv:2010.11929)."""

from research.interop.checks import square
from research.interop.names import Family, Rule, activation, activation_of, heads, linear, norm, only


def settings_of(config, names):
    """Fields of `TransformerSettings`; the vocabulary is a placeholder."""
    only(config, qkv_bias=True)
    return {
        'vocabulary': 1,
        'length': (square(config['image_size'], 'image_size') // square(config['patch_size'], 'patch_size')) ** 2 + 1,
        'width': config['hidden_size'],
        'layers': config['num_hidden_layers'],
        'heads': config['num_attention_heads'],
        'hidden_width': config['intermediate_size'],
        'causal': False,
        'norm': 'layer',
        'norm_position': 'pre',
        'norm_epsilon': config.get('layer_norm_eps', 1e-12),
        'activation': activation(config, 'hidden_act'),
        'positions': 'learned',
        'query_key_value_bias': True,
        'output_bias': True,
        'feed_forward_bias': True,
        'dropout': config.get('hidden_dropout_prob', 0.0),
        'embedding_dropout': config.get('hidden_dropout_prob', 0.0),
        'attention_dropout': config.get('attention_probs_dropout_prob', 0.0),
        'initializer': 'normal',
        'initial_scale': config.get('initializer_range', 0.02),
    }


def image_of(config, names):
    """Picture format: side in pixels, side of a patch, channels, classes (0: no output layer), names."""
    labels = config.get('id2label', {0: '', 1: ''})
    return {
        'size': square(config['image_size'], 'image_size'),
        'patch': square(config['patch_size'], 'patch_size'),
        'channels': config.get('num_channels', 3),
        'classes': len(labels) if 'classifier.weight' in names else 0,
        'labels': tuple(str(labels[key]) for key in sorted(labels, key=int)),
    }


def config_of(settings):
    """config.json of the settings, without the picture format."""
    return {
        'hidden_size': settings.width,
        'num_hidden_layers': settings.layers,
        'num_attention_heads': settings.heads,
        'intermediate_size': settings.width_of_hidden,
        'hidden_act': activation_of(settings),
        'layer_norm_eps': settings.norm_epsilon,
        'hidden_dropout_prob': settings.dropout,
        'attention_probs_dropout_prob': settings.attention_dropout,
        'initializer_range': settings.initial_scale,
        'qkv_bias': True,
    }


def image_config(image):
    """config.json of the picture format."""
    labels = {str(number): f'LABEL_{number}' for number in range(image['classes'])}
    keys = {'image_size': image['size'], 'patch_size': image['patch'], 'num_channels': image['channels']}
    return {**keys, **({'id2label': labels} if labels else {})}


def rules(settings, image):
    """Rules of ViT."""
    layer, attention = 'encoder.layer.{}', 'blocks/attention'
    body = [
        Rule('embeddings.cls_token', ('class_embedding',), 'row'),
        Rule('embeddings.position_embeddings', ('positions/embedding',), 'row'),
        Rule('embeddings.patch_embeddings.projection.weight', ('patch_embedding/kernel',), 'patches'),
        Rule('embeddings.patch_embeddings.projection.bias', ('patch_embedding/bias',)),
        *norm(f'{layer}.layernorm_before', 'blocks/attention_norm'),
        *heads(f'{layer}.attention.attention', attention, ('query', 'key', 'value', ''), True, True)[:6],
        *linear(f'{layer}.attention.output.dense', f'{attention}/out'),
        *norm(f'{layer}.layernorm_after', 'blocks/feed_forward_norm'),
        *linear(f'{layer}.intermediate.dense', 'blocks/feed_forward/up'),
        *linear(f'{layer}.output.dense', 'blocks/feed_forward/down'),
        *norm('layernorm', 'final_norm'),
    ]
    return body + (linear('classifier', 'head') if image['classes'] else [])


VIT = Family(
    'vit', settings_of, config_of, rules, 'vit.', ('pooler.dense.*',), image=image_of, image_config=image_config
)  # fmt: skip
