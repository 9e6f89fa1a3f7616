"""Texts classified by every model: kinds of labels, pairs, pretrained weights, errors, Chinese from end to end."""

import csv
import pathlib

import jax
import numpy as np
import pytest
from etils import epath

from research import api
from research.core.task import Context
from research.errors import UserError

FIXTURES = pathlib.Path(__file__).parent.parent / 'interop' / 'fixtures'
ROWS = [
    ('a good film', 'nice', 'pos', '3.5', 'x'), ('a bad film', 'awful', 'neg', '1', 'y,x'),
    ('good good fun', 'great', 'pos', '4', 'x'), ('bad , dull film', 'boring', 'neg', '0.5', 'z'),
]  # fmt: skip
MODELS = {
    'convolution': {'name': 'convolution', 'width': 8, 'filters': 4, 'windows': (2,)},
    'lstm': {'name': 'lstm', 'width': 8, 'hidden': 4},
    'transformer': {'name': 'transformer', 'width': 8, 'layers': 1, 'heads': 2},
    'ngrams': {'name': 'ngrams', 'order': 2, 'width': 0, 'naive_bayes': True},
    'hashed': {'name': 'ngrams', 'order': 2, 'buckets': 50, 'width': 4},
}


@pytest.fixture
def table(tmp_path):
    with open(tmp_path / 'rows.csv', 'w', encoding='utf-8') as file:
        csv.writer(file).writerows([('first', 'second', 'kind', 'stars', 'tags'), *ROWS])
    return tmp_path


def built(folder, label='kind', model='convolution', pair=False, data=None, **task):
    """Returns the task of a small table."""
    config = api.load_config('configs/sst2.py:tiny')
    with config.unlocked():
        config.task.update({'segment': 'words', 'min_count': 1, 'pair': pair, **task})
        config.model = MODELS[model] if isinstance(model, str) else model
        fields = f'first:text,second:pair,{label}:label' if pair else f'first:text,{label}:label'
        paths = {split: f'{folder}/rows.csv' for split in ('train', 'validation', 'test')}
        config.data = {'reader': 'csv', 'fields': fields, **paths} if data is None else data
    config = api.read(config)
    prepared = epath.Path(folder) / 'prepared'
    api.prepare(config, prepared)
    return api.build(config, prepared)


def batch_of(task, raws):
    examples = [task.encode(raw) for raw in raws]
    fields = {name: np.stack([each[name] for each in examples]) for name in examples[0]}
    return fields | {'mask': np.ones(len(raws), np.float32), 'index': np.arange(len(raws))}


def answers(task, variables, raws):
    outputs = jax.jit(task.predict)(variables, batch_of(task, raws), Context(jax.random.key(0), 0, False))
    return [task.decode({name: np.asarray(value)[row] for name, value in outputs.items()}) for row in range(len(raws))]


@pytest.mark.parametrize(
    ('label', 'labels', 'model', 'pair'),
    [
        ('kind', 'single', 'ngrams', True),
        ('stars', 'number', 'lstm', False),
        ('kind', 'single', 'transformer', True),
        ('tags', 'multi', 'hashed', True),
    ],
)
def test_every_kind_of_label_is_learnt_and_answered(table, label, labels, model, pair):
    """The gradient of the loss lowers it, metrics are there, a request is answered without a label."""
    task = built(table, label, model, pair, labels=labels)
    batch = batch_of(task, [task.source('train')[row] for row in range(4)])
    context = Context(jax.random.key(1), 0, False)

    @jax.jit
    def loss(params):
        return task.losses['model'](variables._replace(params=params), batch, context)[0] / 4

    variables = jax.jit(task.init)(jax.random.key(0))
    value, gradient = jax.jit(jax.value_and_grad(loss))(variables.params)
    size = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(gradient))
    stepped = jax.tree.map(lambda leaf, slope: leaf - 1e-3 / size * slope, variables.params, gradient)
    assert loss(stepped) < value
    sums = jax.jit(task.metric_sums)(variables, batch, context)
    metrics = task.metrics({name: np.asarray(each, np.float64) for name, each in sums.items()})
    assert float(metrics['loss'].value) == pytest.approx(float(value), rel=1e-4)
    request = {'text': 'good', 'pair': 'fine'} if pair else {'text': 'good'}
    answer = answers(task, variables, [request])[0]
    if labels == 'single':
        assert answer['label'] in ('pos', 'neg')
    elif labels == 'multi':
        assert set(answer['probability']) == {'x', 'y', 'z'}
    else:
        assert answer['value'] == pytest.approx(2.25, abs=3)
        ranked = task.finalize(iter([({'label': '1'}, {'value': 3.0}), ({'label': 2}, {'value': 9.0})]))
        assert ranked['spearman'].value == 1
    if task.describe:
        assert set(task.describe({name: value[0] for name, value in batch.items()})) == {'tokens', 'label'}


def test_a_pair_is_read_by_its_second_text_too(table):
    task = built(table, model='ngrams', pair=True)
    variables = jax.jit(task.init)(jax.random.key(0))
    variables.params['model']['grams']['embedding'] = np.random.default_rng(0).normal(size=(100, 2))[
        : variables.params['model']['grams']['embedding'].shape[0]
    ]
    first, second = answers(task, variables, [{'text': 'film', 'pair': 'nice'}, {'text': 'film', 'pair': 'awful'}])
    assert first['top'] != second['top']


@pytest.mark.parametrize(('raw', 'message'), [
    ({}, "the request has no 'text'"),
    ({'text': ' \n'}, "'text' is empty"),
    ({'text': 7}, "'text' is 7, not a text"),
    ({'text': 'a ' * 13}, r'the text has 13 tokens, the model reads 12 .config.task.length=12'),
    ({'text': 'a\udc00'}, 'half of a character at position 1'),
    ({'text': 'a', 'label': 'poss'}, "class 'poss' is not among the 2 of the training split; did you mean 'pos'"),
])  # fmt: skip
def test_a_text_that_cannot_be_is_named(table, raw, message):
    with pytest.raises(UserError, match=message):
        built(table, cut='refuse').encode(raw)


@pytest.mark.parametrize(('change', 'message'), [
    ({'labels': 'number'}, "the label 'pos' is not a finite number"),
    ({'threshold': 1.0}, 'threshold must be above zero and below 1'),
    ({'length': 2}, 'length must be 4 or more'),
    ({'padding': 'left'}, "padding='left' requires config.model.name='lstm'"),
    ({'labels': 'multi', 'one_unit': True}, "one_unit requires labels='single'"),
    ({'model': {'name': 'ngrams', 'naive_bayes': True}}, 'set config.model.width to 0'),
    ({'model': {'name': 'lsmt'}}, "did you mean 'lstm'"),
    ({'model': {'name': 'ngrams'}, 'tokens': 'bpe', 'vocabulary': 257}, "'words' or 'characters'"),
    ({'data': {'reader': 'csv', 'train': 'rows.csv', 'fields': 'a:text'}}, 'rows.csv'),
])  # fmt: skip
def test_settings_that_cannot_be_are_named(table, change, message):
    with pytest.raises(UserError, match=message):
        built(table, **change)


def test_a_text_of_stop_words_and_unknown_words_is_still_a_text(table):
    task = built(table, stop_words='english')
    assert task.encode({'text': 'the'})['length'] == 1
    assert task.encode({'text': 'good zzz'})['tokens'][1] == 1  # unknown, never beyond the embedding


def test_pretrained_weights_are_one_line(table):
    """A random BERT of the fixtures: its tokenizer, its frame of tokens, its weights; its first token's state."""
    weights = {'name': 'transformer', 'weights': str(FIXTURES / 'bert'), 'pool': 'pooler', 'dropout': 0.0}
    task = built(table, model=weights, length=16)
    loaded, variables = task.load(), jax.jit(task.init)(jax.random.key(0))
    merged = {**variables.params['model'], 'encoder': {}}
    for name, tree in variables.params['model']['encoder'].items():
        merged['encoder'][name] = loaded.params['model']['encoder'][name]
        assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, merged['encoder'][name])
    row = task.encode({'text': 'a good film'})
    vocabulary = (FIXTURES / 'bert' / 'vocab.txt').read_text().splitlines()
    length = int(row['length'])
    assert vocabulary[row['tokens'][0]] == '[CLS]' and vocabulary[row['tokens'][length - 1]] == '[SEP]'
    assert task.describe(row)['tokens'].startswith('[CLS] ')
    first = answers(task, variables._replace(params={'model': merged}), [{'text': 'a good film'}])[0]
    assert first['label'] in ('neg', 'pos')
    with pytest.raises(UserError, match='is not of a text encoder|is no encoder|is not an encoder|needs an encoder'):
        built(table, model={**weights, 'weights': str(FIXTURES / 'gpt2')}, length=16)
    with pytest.raises(UserError, match='config.task.length'):
        built(table, model=weights, length=99)


@pytest.mark.slow
def test_chinese_goes_from_the_file_to_the_report(tmp_path):
    """Segmentation, truncation, training, answers and the page: no character is lost, the page says its fonts."""
    summary = api.run('configs/sst2.py:tiny', tmp_path / 'run', {'train.steps': 2, 'train.eval_every': 2})
    page = (tmp_path / 'run' / 'report.html').read_text(encoding='utf-8')
    assert all(name in page for name in ('天气', '饮食', '交通', '学习', 'Noto Sans CJK SC', 'PingFang SC'))
    assert '\ufffd' not in page and summary.step == 2
    model = api.load(str(tmp_path / 'run'))
    answer = model.predict([{'text': '明天会下雪吗？' * 9}, {'text': '𠮷野家的牛肉饭'}])
    assert [each['label'] in ('天气', '饮食', '交通', '学习') for each in answer] == [True, True]
