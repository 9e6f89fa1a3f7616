"""The translation task: what it stores, packed rows against single pairs, the beam, scores and requests."""

import json
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from research.core.task import Context
from research.data.batches import encode_rows, evaluation_rows, requests
from research.data.dataset import open_dataset
from research.errors import UserError, task_settings
from research.tasks.translation import Settings, make, prepare

TASK = {
    'name': 'translation', 'vocabulary': 400, 'length': 64, 'row_length': 80, 'beams': 2, 'label_smoothing': 0.1,
    'bleu_tokenizer': 'zh', 'examples': ('The rain stopped.',), 'score_count': 0,
}  # fmt: skip
MODEL = {
    'width': 16, 'layers': 1, 'heads': 2, 'hidden_width': 16, 'positions': 'sinusoidal', 'activation': 'relu',
    'initial_scale': 0.3,
}  # fmt: skip
SAMPLE = epath.Path(__file__).parent.parent.parent / 'research' / 'data' / 'sets' / 'samples' / 'chinese.tsv'
DATA = {'reader': 'tsv', 'train': str(SAMPLE), 'fields': 'english:source,text:target'}


def config(task=None, model=None, data=None):
    return types.SimpleNamespace(
        task={**TASK, **(task or {})}, model={**MODEL, **(model or {})}, data={**DATA, **(data or {})}
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
        'loss': jax.jit(lambda variables, batch: task.losses['model'](variables, batch, context())),
    }


def context():
    return Context(jax.random.key(0), jnp.int32(0), False)


def test_every_pair_is_in_one_row_and_little_is_padding(task, folder):
    plan = json.loads((folder / 'plan.json').read_text())
    rows, texts = task.source('train'), json.loads((folder / 'test.json').read_text(encoding='utf-8'))
    assert sum(len(row['sources']) for row in rows) == plan['pairs']['train'] == 160 - len(texts) - len(
        task.source('validation')
    )
    assert plan['padding'] < 0.15
    filled = sum(int((task.encode(row)[name] > 0).sum()) for row in rows for name in ('source_segments', 'segments'))
    assert 1 - filled / (160 * len(rows)) == pytest.approx(plan['padding'])
    assert f'{plan["padding"]:.1%} of the tokens are padding' in task.notes()[0]
    seen = {text for split in ('validation', 'test') for text, _ in task.source(split).pairs}
    written = {task.decode({'source': text, 'source_length': len(text), 'tokens': text, 'length': 0})['source']
               for row in rows for text in row['sources']}  # fmt: skip
    assert len(written) == plan['pairs']['train'] and not seen & written


def test_packed_equals_single_pairs(task, variables, functions):
    """A row of several pairs has the loss of its pairs alone, whose sum is also that of the metrics."""
    row = max(task.source('train'), key=lambda row: len(row['sources']))
    assert len(row['sources']) > 2
    total, aux = functions['loss'](variables, requests(task.encode, [row], 2))
    alone = [{'sources': [one], 'targets': [other]} for one, other in zip(*row.values(), strict=True)]
    parts = [functions['loss'](variables, requests(task.encode, [each], 2)) for each in alone]
    assert float(total) == pytest.approx(sum(float(part) for part, _ in parts), rel=1e-5)
    assert float(aux.weight) == sum(float(part.weight) for _, part in parts) == sum(map(len, row['targets']))
    texts = task.decode({
        'source': row['sources'][0], 'source_length': len(row['sources'][0]),
        'tokens': row['targets'][0], 'length': len(row['targets'][0]),
    })  # fmt: skip
    pair = {'source': texts['source'], 'target': texts['text']}
    single = functions['metrics'](variables, requests(task.encode, [pair], 2))
    first = functions['metrics'](variables, requests(task.encode, alone[:1], 2))
    for name in single:
        assert float(single[name]) == pytest.approx(float(first[name]), rel=1e-5), name


def test_loss_and_metrics_equal_float64(task, variables, functions, folder):
    batch = encode_rows(task.source('test'), task.encode, evaluation_rows(3, 4, 0), 0)
    _, aux = functions['loss'](variables, batch)
    logits = np.asarray(aux.outputs['logits'], np.float64)
    logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    counts = np.load(folder / 'counts.npy') + 1.0
    nll = smooth = tokens = unigram = 0.0
    for row in range(3):
        for place in range(batch['length'][row]):
            target = batch['targets'][row, place]
            nll -= logs[row, place, target]
            smooth -= 0.9 * logs[row, place, target] + 0.1 * logs[row, place].mean()
            unigram -= math.log(counts[target] / counts.sum())
            tokens += 1
    total, aux = functions['loss'](variables, batch)
    assert (float(total), float(aux.weight)) == (pytest.approx(smooth, rel=1e-5), tokens)
    found = task.metrics({name: np.asarray(value) for name, value in functions['metrics'](variables, batch).items()})
    assert found['loss'].value == pytest.approx(nll / tokens, rel=1e-5)
    assert found['loss'].baseline == pytest.approx(unigram / tokens, rel=1e-5)
    assert found['perplexity'].value == pytest.approx(math.exp(nll / tokens), rel=1e-4)


def test_generation_reads_what_the_model_reads_at_once(task, variables):
    """Logits of steps with a cache, behind a prompt of several target tokens, are those of the whole target."""
    batch = encode_rows(task.source('test'), task.encode, evaluation_rows(2, 2, 0), 0)
    _, aux = jax.jit(lambda v: task.losses['model'](v, batch, context()))(variables)

    @jax.jit
    def steps(variables):
        prompts = {**batch, 'tokens': batch['tokens'][:, :4], 'length': jnp.array([1, 4])}
        cache, found = task.generate.start(variables, prompts, 12), []
        for count in range(4):
            places = prompts['length'] - 1 + count
            tokens = jnp.take_along_axis(batch['tokens'], places[:, None], axis=1)[:, 0]
            cache, logits = task.generate.step(variables, cache, tokens)
            found.append(logits)
        return jnp.stack(found, axis=1)

    found, logits = np.asarray(steps(variables)), np.asarray(aux.outputs['logits'])
    np.testing.assert_allclose(found[0], logits[0, 0:4], atol=1e-4)
    np.testing.assert_allclose(found[1], logits[1, 3:7], atol=1e-4)


def test_answers_and_scores(task, variables, functions):
    batch = requests(task.encode, [{'source': 'The rain stopped.'}, {'source': 'Winter is cold.'}], 2)
    outputs = jax.device_get(functions['predict'](variables, batch))
    answer = task.decode({name: value[0] for name, value in outputs.items()})
    assert answer['source'] == 'The rain stopped.' and isinstance(answer['text'], str)
    rows = [task.source('test')[number] for number in range(3)]
    right = task.finalize((row, {'text': row['target']}) for row in rows)
    assert right['bleu'].value == pytest.approx(100) and right['bleu'].baseline < 5
    assert 'tok:zh' in right['bleu'].about and 'beam 2' in right['bleu'].about and 'nc:6' in right['chrf'].about
    assert task.finalize((row, {'text': ''}) for row in [task.source('train')[0]]) == {}


@pytest.mark.parametrize(
    ('request_', 'message'),
    [
        ({'text': 'x'}, "no 'source'"),
        ({'source': 3}, 'not a string'),
        ({'source': ' \n'}, 'is empty'),
        ({'source': '今天' * 40}, 'tokens with its end; the model reads 64'),
        ({'source': 'word ' * 10_000}, 'characters'),
        ({'source': 'half \ud800'}, 'half of a character'),
    ],
)
def test_impossible_requests_are_refused(task, request_, message):
    with pytest.raises(UserError, match=message):
        task.encode(request_)


@pytest.mark.parametrize(
    ('bad', 'message'),
    [
        ({'beams': 0}, 'beams'),
        ({'row_length': 32}, 'row_length=32 is too short'),
        ({'label_smoothing': 1.0}, 'label_smoothing'),
        ({'bleu_tokenizer': '13'}, 'bleu_tokenizer'),
    ],
)
def test_impossible_settings_are_refused(bad, message):
    with pytest.raises(UserError, match=message):
        task_settings(Settings, config(bad))


def test_tokenizers_of_their_own_and_long_pairs_left_out(tmp_path):
    own = config({'shared': False, 'vocabulary': 300, 'length': 20, 'row_length': 20})
    folder = epath.Path(tmp_path) / 'own'
    prepare(own, folder)
    task = make(own, folder)
    shapes = jax.eval_shape(task.init, jax.random.key(0)).params['model']
    assert shapes['tokens']['embedding'].shape == shapes['source_tokens']['embedding'].shape == (300, 16)
    assert (folder / 'source.json').read_text() != (folder / 'target.json').read_text()
    assert 'longer than 20 tokens' in task.notes()[1] and 'cut to 20 tokens' in task.notes()[2]
    assert all(len(text) <= 20 for row in task.source('train') for text in row['sources'] + row['targets'])
    with pytest.raises(UserError, match='none is left'):
        prepare(config({'length': 2, 'row_length': 2}), epath.Path(tmp_path) / 'none')


def test_multi30k_is_read_as_its_source_says(data, monkeypatch):
    from research import api

    monkeypatch.setenv('TESSERA_DATA', str(data))
    pairs = open_dataset(api.read('configs/multi30k_translation.py').data, ('source', 'target'), ('target',))
    assert {split: len(pairs.source(split)) for split in pairs.splits} == {
        'train': 29_000, 'validation': 1014, 'test': 1000
    }  # fmt: skip
    assert pairs.source('test')[0]['source'] == 'A man in an orange hat starring at something.'
