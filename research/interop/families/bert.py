"""BERT, RoBERTa and DistilBERT: post-norm encoders with learned positions.

Devlin et al. 2019 (arXiv:1810.04805), Liu et al. 2019 (arXiv:1907.11692), Sanh et al. 2019 (arXiv:1910.01108).
"""

from research.interop.names import Family, Rule, activation, activation_of, heads, linear, norm, only, table

POSITION_OFFSET = 2  # RoBERTa counts positions from its padding id 1

SHARED = {
    'causal': False,
    'norm': 'layer',
    'norm_position': 'post',
    'positions': 'learned',
    'embedding_norm': True,
    'query_key_value_bias': True,
    'output_bias': True,
    'feed_forward_bias': True,
    'tie_embedding': True,
    'initializer': 'normal',
}


def bert_settings(config, names, head='cls.predictions.bias', offset=0):
    """Fields of `TransformerSettings`; with a pooler and a head if the names include them."""
    only(config, position_embedding_type='absolute', tie_word_embeddings=True, is_decoder=False)
    dropout = config.get('hidden_dropout_prob', 0.1)
    return {
        **SHARED,
        'vocabulary': config['vocab_size'],
        'length': config['max_position_embeddings'] - offset,
        'position_offset': offset,
        'width': config['hidden_size'],
        'layers': config['num_hidden_layers'],
        'heads': config['num_attention_heads'],
        'hidden_width': config['intermediate_size'],
        'activation': activation(config, 'hidden_act'),
        'norm_epsilon': config.get('layer_norm_eps', 1e-12),
        'types': config.get('type_vocab_size', 2),
        'pooler': 'pooler.dense.weight' in names,
        'head_transform': head in names,
        'head_bias': head in names,
        'dropout': dropout,
        'embedding_dropout': dropout,
        'attention_dropout': config.get('attention_probs_dropout_prob', 0.1),
        'initial_scale': config.get('initializer_range', 0.02),
    }


def bert_config(settings):
    """config.json of the settings."""
    return {
        'vocab_size': settings.vocabulary,
        'hidden_size': settings.width,
        'num_hidden_layers': settings.layers,
        'num_attention_heads': settings.heads,
        'intermediate_size': settings.width_of_hidden,
        'hidden_act': activation_of(settings),
        'hidden_dropout_prob': settings.dropout,
        'attention_probs_dropout_prob': settings.attention_dropout,
        'max_position_embeddings': settings.length + settings.position_offset,
        'type_vocab_size': settings.types,
        'initializer_range': settings.initial_scale,
        'layer_norm_eps': settings.norm_epsilon,
    }


def bert_body(settings):
    """Rules of BERT without its head."""
    layer, block = 'encoder.layer.{}', 'blocks'
    rules = [
        table('embeddings.word_embeddings', 'tokens'),
        table('embeddings.position_embeddings', 'positions'),
        table('embeddings.token_type_embeddings', 'types'),
        *norm('embeddings.LayerNorm', 'embedding_norm'),
        *heads(f'{layer}.attention.self', f'{block}/attention', ('query', 'key', 'value', ''), True, True)[:6],
        *linear(f'{layer}.attention.output.dense', f'{block}/attention/out'),
        *norm(f'{layer}.attention.output.LayerNorm', f'{block}/attention_norm'),
        *linear(f'{layer}.intermediate.dense', f'{block}/feed_forward/up'),
        *linear(f'{layer}.output.dense', f'{block}/feed_forward/down'),
        *norm(f'{layer}.output.LayerNorm', f'{block}/feed_forward_norm'),
    ]
    return rules + (linear('pooler.dense', 'pooler') if settings.pooler else [])


def bert_rules(settings):
    head = [
        *linear('cls.predictions.transform.dense', 'head/transform'),
        *norm('cls.predictions.transform.LayerNorm', 'head/norm'),
        Rule('cls.predictions.bias', ('head/bias',)),
    ]
    return bert_body(settings) + (head if settings.head_transform else [])


def roberta_settings(config, names):
    only(config, pad_token_id=1)
    settings = bert_settings({'layer_norm_eps': 1e-5, **config}, names, 'lm_head.bias', POSITION_OFFSET)
    return {**settings, 'head_activation': 'gelu'}  # its head ignores hidden_act


def roberta_rules(settings):
    """Rules of RoBERTa: BERT's with another head."""
    head = [
        *linear('lm_head.dense', 'head/transform'),
        *norm('lm_head.layer_norm', 'head/norm'),
        Rule('lm_head.bias', ('head/bias',)),
    ]
    return bert_body(settings) + (head if settings.head_transform else [])


def distilbert_settings(config, names):
    only(config, tie_word_embeddings=True)
    head = 'vocab_projector.bias' in names
    return {
        **SHARED,
        'vocabulary': config['vocab_size'],
        'length': config['max_position_embeddings'],
        'width': config['dim'],
        'layers': config['n_layers'],
        'heads': config['n_heads'],
        'hidden_width': config['hidden_dim'],
        'activation': activation(config, 'activation'),
        'norm_epsilon': 1e-12,
        'pooler_activation': 'relu',  # of its classifier
        'head_transform': head,
        'head_bias': head,
        'dropout': config.get('dropout', 0.1),
        'embedding_dropout': config.get('dropout', 0.1),
        'attention_dropout': config.get('attention_dropout', 0.1),
        'initial_scale': config.get('initializer_range', 0.02),
    }


def distilbert_config(settings):
    return {
        'vocab_size': settings.vocabulary,
        'max_position_embeddings': settings.length,
        'dim': settings.width,
        'n_layers': settings.layers,
        'n_heads': settings.heads,
        'hidden_dim': settings.width_of_hidden,
        'activation': activation_of(settings),
        'dropout': settings.dropout,
        'attention_dropout': settings.attention_dropout,
        'initializer_range': settings.initial_scale,
    }


def distilbert_rules(settings):
    layer, block = 'transformer.layer.{}', 'blocks'
    rules = [
        table('embeddings.word_embeddings', 'tokens'),
        table('embeddings.position_embeddings', 'positions'),
        *norm('embeddings.LayerNorm', 'embedding_norm'),
        *heads(f'{layer}.attention', f'{block}/attention', ('q_lin', 'k_lin', 'v_lin', 'out_lin'), True, True),
        *norm(f'{layer}.sa_layer_norm', f'{block}/attention_norm'),
        *linear(f'{layer}.ffn.lin1', f'{block}/feed_forward/up'),
        *linear(f'{layer}.ffn.lin2', f'{block}/feed_forward/down'),
        *norm(f'{layer}.output_layer_norm', f'{block}/feed_forward_norm'),
    ]
    head = [
        *linear('vocab_transform', 'head/transform'),
        *norm('vocab_layer_norm', 'head/norm'),
        Rule('vocab_projector.bias', ('head/bias',)),
    ]
    return rules + (head if settings.head_transform else [])


BERT = Family(
    'bert', bert_settings, bert_config, bert_rules, 'bert.',
    ('embeddings.position_ids', 'cls.predictions.decoder.*', 'cls.seq_relationship.*', 'classifier.*'),
    head=(*linear('classifier', 'head'),),
)  # fmt: skip
ROBERTA = Family(
    'roberta', roberta_settings, bert_config, roberta_rules, 'roberta.',
    ('embeddings.position_ids', 'lm_head.decoder.*', 'classifier.*'),
    head=(*linear('classifier.dense', 'encoder/pooler'), *linear('classifier.out_proj', 'head')),
)  # fmt: skip
DISTILBERT = Family(
    'distilbert', distilbert_settings, distilbert_config, distilbert_rules, 'distilbert.',
    ('embeddings.position_ids', 'vocab_projector.weight', 'pre_classifier.*', 'classifier.*', 'qa_outputs.*'),
    head=(*linear('pre_classifier', 'encoder/pooler'), *linear('classifier', 'head')),
)  # fmt: skip
