"""A published classifier: its trained head is read where its classes are those of the data."""

import json
import pathlib
import shutil
import types

import jax
import numpy as np
import parity
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers

from research.core.startup import load_weights
from research.core.task import Context
from research.errors import UserError
from research.interop import heads, pretrained, weights
from research.interop.files import SINGLE
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings
from research.tasks import text_classification

FOLDER = pathlib.Path(__file__).parent / 'fixtures'
RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.normal(size=(2, 16)).astype(np.float32), np.array([0.5, -0.25], np.float32)


def published(tmp_path, labels, kernel=KERNEL):
    """A BERT with a classifier of the classes `labels`, in their order."""
    folder = tmp_path / 'published'
    shutil.copytree(FOLDER / 'bert', folder)
    config = json.loads((folder / 'config.json').read_text())
    config['id2label'] = {str(number): name for number, name in enumerate(labels)}
    (folder / 'config.json').write_text(json.dumps(config))
    tensors = {**load_file(folder / SINGLE), 'classifier.weight': kernel, 'classifier.bias': BIAS}
    save_file(tensors, folder / SINGLE, {'format': 'pt'})
    return folder


def built(tmp_path, folder, pool='pooler'):
    lines = ''.join(f'the quick fox {number},{("good", "bad")[number % 2]}\n' for number in range(40))
    (tmp_path / 'a.csv').write_text('text,label\n' + lines)
    config = types.SimpleNamespace(
        task={'name': 'text_classification', 'length': 12},
        model={'name': 'transformer', 'weights': str(folder), 'pool': pool, 'head_dropout': 0.0},
        data={'reader': 'csv', 'train': str(tmp_path / 'a.csv')},
    )
    prepared = epath.Path(tmp_path / 'prepared')
    text_classification.prepare(config, prepared)
    return text_classification.make(config, prepared)


@pytest.mark.parametrize('labels', [('bad', 'good'), ('good', 'bad')])
def test_a_published_classifier_answers_as_its_authors_trained_it(labels, tmp_path):
    """The logits written again in NumPy from the pooled state, which the fixtures check against the reference."""
    folder = published(tmp_path, labels)
    task = built(tmp_path, folder)
    variables, _ = load_weights(task.load(), jax.jit(task.init)(jax.random.key(0)))
    example = task.encode({'text': 'the quick brown fox'})
    batch = {name: value[None] for name, value in example.items()}
    logits = task.predict(variables, batch, Context(jax.random.key(0), 0, False))['logits'][0]
    inputs = {'tokens': batch['tokens'], 'length': batch['length'], 'types': batch['types']}
    pooled = parity.outputs_of(weights.read(FOLDER / 'bert'), inputs)['pooled'][0]
    scores = dict(zip(labels, KERNEL @ pooled + BIAS, strict=True))
    np.testing.assert_allclose(logits, [scores['bad'], scores['good']], atol=1e-5)


@pytest.mark.parametrize(('labels', 'pool'), [(('LABEL_0', 'LABEL_1'), 'pooler'), (('bad', 'good'), 'mean')])
def test_a_head_of_other_classes_starts_anew(labels, pool, tmp_path):
    task = built(tmp_path, published(tmp_path, labels), pool)
    assert 'head' not in task.load().params['model']


def test_a_head_of_another_shape_is_refused(tmp_path):
    folder, prepared = published(tmp_path, ('a', 'b'), KERNEL[:, :8]), epath.Path(tmp_path / 'prepared')
    model = {'weights': str(folder)}
    pretrained.store(model, prepared, 'encoder')
    order = pretrained.head_order(model, prepared, ('a', 'b'))
    with pytest.raises(UserError, match=r'classifier.weight has shape \[2, 8\], not \[2, 16\]'):
        pretrained.make_load(model, prepared, path='encoder', head=order)()
    assert pretrained.head_order(model, prepared, ('a', 'c')) is None


def test_classes_are_matched_by_name_in_either_case():
    assert heads.order_of(['NEGATIVE', 'POSITIVE'], ['positive', 'negative']) == [1, 0]
    assert heads.order_of(['a', 'A'], ['A', 'a']) == [1, 0]
    assert heads.order_of(['a', 'A'], ['a', 'b']) is None and heads.order_of([], []) is None


TOKENS = {
    'roberta': ('<s>', '<pad>', '</s>', '<unk>', '<mask>'),
    'distilbert': ('[CLS]', '[PAD]', '[SEP]', '[UNK]', '[MASK]'),
}  # fmt: skip
HEADS = {
    'roberta': ('classifier.dense', 'classifier.out_proj', np.tanh),
    'distilbert': ('pre_classifier', 'classifier', lambda values: np.maximum(values, 0)),
}


@pytest.mark.parametrize('family', HEADS)
def test_heads_of_roberta_and_distilbert_are_read(family, tmp_path):
    """The logits in NumPy from the encoder's first state: dense, the family's activation, and the linear layer."""
    first, last, activation = HEADS[family]
    folder, labels = tmp_path / 'published', ('GOOD', 'BAD')
    shutil.copytree(FOLDER / family, folder)
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, 'id2label': dict(enumerate(labels))}))
    dense = RNG.normal(size=(16, 16)).astype(np.float32), RNG.normal(size=16).astype(np.float32)
    tensors = {f'{first}.weight': dense[0], f'{first}.bias': dense[1], f'{last}.weight': KERNEL, f'{last}.bias': BIAS}
    body = {name: tensor for name, tensor in load_file(folder / SINGLE).items() if name.startswith(f'{family}.')}
    save_file({**body, **tensors}, folder / SINGLE, {'format': 'pt'})
    names = (*TOKENS[family], 'the', 'quick', 'brown', 'fox')
    tokenizer = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, TOKENS[family][3]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / 'tokenizer.json'))
    task = built(tmp_path, folder, 'auto')
    variables, report = load_weights(task.load(), jax.jit(task.init)(jax.random.key(0)))
    assert not report.missing and not report.misshapen
    example = task.encode({'text': 'the quick brown fox'})
    batch = {name: value[None] for name, value in example.items()}
    logits = task.predict(variables, batch, Context(jax.random.key(0), 0, False))['logits'][0]
    found = weights.read(FOLDER / family)
    model = Transformer(TransformerSettings(**found.settings))
    types = batch['types'] if found.settings.get('types') else None
    states, _ = model.apply({'params': found.params}, batch['tokens'], batch['length'], types=types, method='features')
    hidden = activation(dense[0] @ np.asarray(states)[0, 0] + dense[1])
    scores = dict(zip(labels, KERNEL @ hidden + BIAS, strict=True))
    np.testing.assert_allclose(logits, [scores['BAD'], scores['GOOD']], atol=1e-5)
