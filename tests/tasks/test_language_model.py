"""The language model task: what it stores, loss and metrics in float64, generation, requests, meshes."""

import json
import math
import pickle
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research.core.task import Context
from research.data.batches import encode_rows, evaluation_rows, requests
from research.data.text.corpus import load_array
from research.errors import UserError
from research.inference.requests import read_requests
from research.tasks.language_model import make, prepare

TASK = {
    'name': 'language_model', 'vocabulary': 300, 'length': 16, 'max_new_tokens': 6, 'temperature': 0.0,
    'prompts': ('import os\n', 'x'), 'check': 'python', 'check_count': 5,
}  # fmt: skip
MODEL = {'width': 16, 'layers': 2, 'heads': 2, 'scan': True, 'initial_scale': 0.2}


def config(task=None, model=None, data=None):
    return types.SimpleNamespace(
        task={**TASK, **(task or {})},
        model={**MODEL, **(model or {})},
        data={'name': 'python_source', 'megabytes': 0.1, **(data or {})},
    )


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = epath.Path(tmp_path_factory.mktemp('prepared')) / 'task'
    prepare(config(), folder)
    return folder


@pytest.fixture(scope='module')
def task(folder):
    return make(config(), folder)


@pytest.fixture(scope='module')
def variables(task):
    return jax.jit(task.init)(jax.random.key(0))


@pytest.fixture(scope='module')
def functions(task):
    """The task's device functions, compiled once a shape."""
    return {
        'metrics': jax.jit(lambda variables, batch: task.metric_sums(variables, batch, context())),
        'predict': jax.jit(lambda variables, batch: task.predict(variables, batch, context())),
        'loss': jax.jit(lambda variables, batch: task.losses['model'](variables, batch, context(True))),
    }


def context(train=False):
    return Context(jax.random.key(5), jnp.int32(0), train)


def rows(task, count, size, step=0, split='validation'):
    source = task.source(split)
    return encode_rows(source, task.encode, evaluation_rows(min(count, len(source)), size, step), 0)


def log_probabilities(logits):
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def test_prepare_stores_what_the_training_split_gives(folder, task):
    about = json.loads((folder / 'corpus.json').read_text())
    assert len(about['sha256']) == 64 and about['corpus'].startswith('standard library of ')
    streams = {split: load_array(folder / f'{split}.npy') for split in ('train', 'validation', 'test')}
    assert about['tokens'] == {split: len(stream) for split, stream in streams.items()}
    counts, sizes = load_array(folder / 'counts.npy'), load_array(folder / 'bytes.npy')
    np.testing.assert_array_equal(counts, np.bincount(streams['train'], minlength=300))
    for split, stream in streams.items():
        assert sizes[stream].sum() == about['bytes'][split]
    assert len(task.source('train')) == (len(streams['train']) - 1) // 16


def test_rows_and_requests(task):
    raw = task.source('train')[3]
    row = task.encode(raw)
    np.testing.assert_array_equal(row['tokens'], raw['tokens'][:-1])
    np.testing.assert_array_equal(row['targets'], raw['tokens'][1:])
    request = task.encode({'text': 'import os'})
    assert set(request) == {'tokens', 'length'} and request['tokens'].shape == row['tokens'].shape
    assert 0 < request['length'] <= 10 and not request['tokens'][request['length'] :].any()
    assert [example['text'] for example in task.examples] == list(TASK['prompts'])
    copy = pickle.loads(pickle.dumps(task.encode))  # worker processes get it so
    np.testing.assert_array_equal(copy({'text': 'import os'})['tokens'], request['tokens'])


@pytest.mark.parametrize(
    'raw, message',
    [
        ({'text': ''}, 'empty'),
        ({'text': '\x00\x01\x02\x03\x04\x05\x06\x07\x08\x0e\x0f'}, '11 tokens; at most 10'),
        ({'text': 'x' * 100_000}, '100000 characters'),
        ({'text': 3}, 'not a string'),
        ({}, "no 'text'"),
    ],
)
def test_impossible_requests_are_refused(task, raw, message):
    with pytest.raises(UserError, match=message):
        task.encode(raw)
    limit = task.inputs['text'].limit
    assert limit >= 10 and 'at most 10 tokens' in task.inputs['text'].about


def test_a_row_is_described_as_text(task):
    row = task.encode(task.source('train')[0])
    fields = task.describe(row)
    text = ''.join(task.decode({'prompt': [], 'prompt_length': 0, 'tokens': [each], 'length': 1})['text']
                   for each in row['tokens'])  # fmt: skip
    assert fields['text'] == text and fields['target'][:5] in text
    assert fields['token and the next'].count("' '") >= 5 and json.dumps(fields)
    assert task.describe(task.encode({'text': 'x = 1'})) == {'text': 'x = 1'}
    assert '<|endoftext|>' in task.describe({'tokens': np.array([0]), 'length': 1})['text']


def test_an_empty_input_is_an_empty_text_and_no_folder(task):
    assert read_requests(task.inputs, ['', ' ']) == [{'text': ''}, {'text': ' '}]


def test_loss_is_the_sum_over_tokens_of_real_rows(task, variables, functions):
    batch = rows(task, 6, 8)
    total, aux = functions['loss'](variables, batch)
    logits = log_probabilities(aux.outputs['logits'])[:6]
    targets = batch['targets'][:6]
    picked = np.take_along_axis(logits, targets[..., None], -1)
    np.testing.assert_allclose(total, -picked.sum(), rtol=1e-6)
    assert aux.weight == 6 * 16
    assert aux.logs['accuracy'] == np.sum(logits.argmax(-1) == targets)
    spoilt = {**batch, 'targets': batch['targets'].copy()}
    spoilt['targets'][6:] = 7
    assert functions['loss'](variables, spoilt)[0] == total


def test_metrics_equal_float64_for_any_batch_size(task, folder, variables, functions):
    count = 13
    results = []
    for size in (8, 5):
        sums = {}
        for step in range(-(-count // size)):
            for name, value in functions['metrics'](variables, rows(task, count, size, step)).items():
                sums[name] = sums.get(name, 0.0) + np.float64(value)
        results.append(task.metrics(sums))
    batch = rows(task, count, count)
    logits = log_probabilities(functions['loss'](variables, batch)[1].outputs['logits'])
    nll = -np.take_along_axis(logits, batch['targets'][..., None], -1)
    counts = load_array(folder / 'counts.npy').astype(np.float64) + 1
    unigram = -np.log(counts / counts.sum())[batch['targets']]
    length = load_array(folder / 'bytes.npy')[batch['targets']].sum()
    expected = {
        'loss': (nll.mean(), unigram.mean()),
        'perplexity': (math.exp(nll.mean()), math.exp(unigram.mean())),
        'bits_per_byte': (nll.sum() / length / math.log(2), unigram.sum() / length / math.log(2)),
        'accuracy': [np.mean(guess == batch['targets']) for guess in (logits.argmax(-1), counts.argmax())],
    }
    for metrics in results:
        assert set(metrics) == set(expected)
        for name, (value, baseline) in expected.items():
            np.testing.assert_allclose(metrics[name].value, value, rtol=1e-5)
            np.testing.assert_allclose(metrics[name].baseline, baseline, rtol=1e-5)


def greedy(task, variables, tokens, most):
    """Continues one text by reading all of it again for every token, without a cache."""
    run = jax.jit(lambda batch: task.losses['model'](variables, batch, context())[1].outputs['logits'])
    tokens, new = list(tokens), []
    while len(new) < most and len(tokens) < 16:
        padded = np.zeros((1, 16), np.int32)
        padded[0, : len(tokens)] = tokens
        batch = {'tokens': padded, 'targets': padded, 'length': np.array([16])}
        logits = run({**batch, 'mask': np.ones(1, np.float32)})
        token = int(np.argmax(logits[0, len(tokens) - 1]))
        tokens.append(token)
        new.append(token)
        if token == 0:
            break
    return new


def test_predict_continues_as_the_model_without_a_cache_does(task, variables, functions):
    raws = [{'text': 'import os'}, {'text': 'x'}, {'text': 'def f(self'}]
    batch = requests(task.encode, raws, 4)
    outputs = jax.device_get(functions['predict'](variables, batch))
    for row in range(3):
        length = batch['length'][row]
        expected = greedy(task, variables, batch['tokens'][row, :length], 6)
        assert outputs['tokens'][row, : outputs['length'][row]].tolist() == expected
        answer = task.decode({name: value[row] for name, value in outputs.items()})
        assert answer['prompt'] == raws[row]['text'] and isinstance(answer['text'], str)
    json.dumps(answer)


def test_rows_are_continued_from_their_middle(task, variables, functions):
    batch = rows(task, 4, 4)
    outputs = jax.device_get(functions['predict'](variables, batch))
    assert set(outputs['prompt_length']) == {8}
    assert outputs['tokens'].shape == (4, 6) and outputs['length'].max() <= 6
    for row in range(4):
        answer = task.decode({name: value[row] for name, value in outputs.items()})
        half = {'prompt': batch['tokens'][row], 'prompt_length': 8, 'tokens': [], 'length': 0}
        assert answer['prompt'] == task.decode(half)['prompt']


def test_sampled_text_does_not_depend_on_the_batch(folder, variables):
    task = make(config({'temperature': 1.0, 'top_p': 0.9}), folder)
    run = jax.jit(lambda variables, batch: task.predict(variables, batch, context()))
    batch = rows(task, 4, 4)
    whole = jax.device_get(run(variables, batch))
    assert len(set(map(bytes, whole['tokens']))) > 1
    turned = jax.device_get(run(variables, {name: value[::-1] for name, value in batch.items()}))
    np.testing.assert_array_equal(whole['tokens'], turned['tokens'][::-1])


def test_finalize_holds_generated_lines_against_the_corpus(task):
    source = task.source('validation')
    decoded = [{'text': "x\na = 1\nb = what?\n"}] * 3 + [{'text': 'one line'}] * 9
    metric = task.finalize(zip(source, decoded, strict=False))['python_lines']
    assert metric.value == 0.5 and metric.better == ''
    assert 0 <= metric.baseline <= 1 and '3 of 6' in metric.about and '5 texts' in metric.about
    assert task.finalize_count == 5


def test_without_a_check_there_is_nothing_to_finalize(folder):
    assert make(config({'check': ''}), folder).finalize is None


def test_mesh_gives_the_same_loss(task, variables, functions):
    batch = rows(task, 8, 8)
    expected, _ = functions['loss'](variables, batch)
    mesh = jax.make_mesh((2, 2, 2), ('data', 'fsdp', 'tensor'), axis_types=(AxisType.Auto,) * 3)
    with jax.set_mesh(mesh):
        sharding = NamedSharding(mesh, PartitionSpec(('data', 'fsdp')))
        placed = jax.device_put(batch, jax.tree.map(lambda _: sharding, batch))
        copied = jax.device_put(jax.device_get(variables), NamedSharding(mesh, PartitionSpec()))
        result, _ = jax.jit(lambda v, b: task.losses['model'](v, b, context(True)))(copied, placed)
        tokens = jax.jit(lambda v, b: task.predict(v, b, context()))(copied, placed)['tokens']
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_array_equal(tokens, functions['predict'](variables, batch)['tokens'])


@pytest.mark.parametrize(
    'change, message',
    [
        ({'task': {'max_new_tokens': 16}}, 'no room for a prompt'),
        ({'task': {'top_p': 0.0}}, 'top_p'),
        ({'task': {'vocabulry': 300}}, 'did you mean .vocabulary'),
        ({'task': {'check': 'ruby'}}, 'check'),
        ({'model': {'heads': 3}}, 'heads=3'),
        ({'model': {'causal': False}}, 'must be causal'),
        ({'model': {'vocabulary': 5}}, 'vocabulary'),
        ({'data': {'nmae': 'x'}}, 'nmae'),
        ({'data': {'megabytes': -1.0}}, 'megabytes'),
    ],
)
def test_impossible_settings_are_refused(folder, change, message):
    with pytest.raises(UserError, match=message):
        make(config(**change), folder)


def test_too_little_text_is_refused(tmp_path):
    with pytest.raises(UserError, match='too few for one row'):
        prepare(config({'length': 100_000}), epath.Path(tmp_path))
