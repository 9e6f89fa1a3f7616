"""T5's pre-training: rows and their lengths, loss and baseline, answers, errors, Chinese text."""

import jax
import numpy as np
import pytest
from text_tasks import answers, built, chinese, config, context, log_probabilities, metrics_of, rows

from research.errors import UserError
from research.tasks.span_corruption import make

TASK = {
    'name': 'span_corruption', 'vocabulary': 300, 'length': 32, 'density': 0.25, 'mean_span': 2.0,
    'prompts': ('import<extra_id_0>\n',),
}  # fmt: skip


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('spans')


@pytest.fixture(scope='module')
def task(folder):
    return built(config(TASK), folder)


@pytest.fixture(scope='module')
def variables(task):
    return jax.jit(task.init)(jax.random.key(0))


def test_rows_are_source_and_target_of_one_text(task):
    raw = task.source('train')[1]
    first, second = (task.encode(raw, np.random.default_rng([0, epoch, 1])) for epoch in (0, 1))
    assert first['source'].tolist() != second['source'].tolist()
    np.testing.assert_array_equal(task.encode(raw)['source'], task.encode(raw)['source'])
    assert first['source'].shape == (32 - 8 + 4 + 1,) and first['targets'].shape == (8 + 4 + 2,)
    np.testing.assert_array_equal(first['tokens'][1:], first['targets'][:-1])
    assert first['tokens'][0] == first['source'][-1] == first['targets'][-1] == 0
    shown = [task.describe(row) for row in (first, second)]
    assert shown[0]['text'] == shown[1]['text'] and shown[0]['source'].count('<extra_id_') == 4
    assert shown[0]['target'].startswith('<extra_id_0>') and '<extra_id_4>' in shown[0]['target']


def test_loss_and_metrics_count_target_tokens_of_real_rows(task, variables):
    batch = rows(task, 3)
    batch['mask'][2] = 0
    total, aux = jax.jit(lambda v, b: task.losses['model'](v, b, context()))(variables, batch)
    picked = np.take_along_axis(log_probabilities(aux.outputs['logits']), batch['targets'][..., None], -1)[..., 0]
    assert float(total) == pytest.approx(-picked[:2].sum(), rel=1e-5) and aux.weight == 28
    metrics = metrics_of(task, variables, batch)
    assert metrics['loss'].value == pytest.approx(-picked[:2].mean(), rel=1e-5)
    # one of the 14 tokens of a target is each of 5 sentinels and the end: at least log 14 for those
    assert 0.4 * np.log(14) < metrics['loss'].baseline < np.log(300)


def test_baseline_knows_how_often_sentinels_come(task):
    tokens = task.encode.__self__
    expected, seen, source = tokens.target_counts(), np.zeros(300), task.source('train')
    for number in range(len(source)):
        np.add.at(seen, task.encode(source[number])['targets'], 1)
    np.testing.assert_allclose(expected[tokens.sentinels], seen[tokens.sentinels], rtol=0.01)
    assert expected.sum() == pytest.approx(seen.sum(), rel=0.01)
    space = int(np.argmax(tokens.stats.counts))
    assert expected[space] == pytest.approx(seen[space], rel=0.1)


def test_answers_fill_sentinels(task, variables):
    text = 'for i in <extra_id_0>(10):\n  <extra_id_1>'
    (answer,) = answers(task, variables, [{'text': text}])
    assert set(answer['spans']) == {'<extra_id_0>', '<extra_id_1>'}
    assert answer['source'] == 'for i in<extra_id_0>(10):\n <extra_id_1>'  # a space belongs to what is missing
    filled = answer['source']
    for name, span in answer['spans'].items():
        filled = filled.replace(name, span)
    assert answer['text'] == filled


def test_a_written_target_is_read_by_its_sentinels(task):
    row = task.encode(task.source('validation')[0])
    written = {'source': row['source'], 'source_length': row['source_length'], 'tokens': row['targets'], 'length': 14}
    answer = task.decode(written)
    assert answer['text'] == task.describe(row)['text'] and len(answer['spans']) == 4


def test_generation_equals_reading_all_again(task, variables):
    batch = rows(task, 2)
    run = jax.jit(lambda b: task.losses['model'](variables, b, context())[1].outputs['logits'])
    written = np.zeros((2, 14), np.int32)
    for place in range(14):
        logits = np.asarray(run({**batch, 'tokens': np.insert(written, 0, 0, 1)[:, :14]}))
        written[:, place] = logits[:, place].argmax(-1)
    outputs = jax.jit(lambda b: task.predict(variables, b, context()))(batch)
    for row in range(2):
        length = int(outputs['length'][row])
        assert outputs['tokens'][row, :length].tolist() == written[row, :length].tolist()
        assert length == 14 or written[row, length - 1] == 0


@pytest.mark.parametrize(
    'text, message',
    [
        ('nothing missing', r'\(none\): write <extra_id_0>'),
        ('a<extra_id_1>', 'in order'),
        ('<extra_id_0><extra_id_0>', 'each once'),
        ('<extra_id_0><extra_id_1><extra_id_2><extra_id_3><extra_id_4>', 'up to <extra_id_3>'),
        ('', 'empty'),
        ('\x00\x01\x02\x03\x04\x05\x06' * 4 + '<extra_id_0>', '29 tokens; the model reads 28'),
        ('<extra_id_0>' + 'ab' * 40000, 'characters'),
    ],
)
def test_impossible_requests_are_refused(task, text, message):
    with pytest.raises(UserError, match=message):
        task.encode({'text': text})


@pytest.mark.parametrize(
    'change, message',
    [
        ({'density': 1.0}, 'density'),
        ({'mean_span': 0.5}, 'mean_span'),
        ({'length': 1}, 'length'),
        ({'temperature': -1.0}, 'temperature'),
        ({'densty': 0.1}, 'did you mean .density'),
        ({'vocabulary': 280}, 'beyond the embedding of 280'),
    ],
)
def test_impossible_settings_are_refused(folder, change, message):
    with pytest.raises(UserError, match=message):
        make(config({**TASK, **change}), folder / 'prepared')


def test_chinese_text(tmp_path):
    task = built(chinese({**TASK, 'tokenizer': 'character', 'vocabulary': 200}), tmp_path)
    row = task.encode(task.source('train')[0])
    assert '。' in task.describe(row)['text']
    variables = jax.jit(task.init)(jax.random.key(0))
    (answer,) = answers(task, variables, [{'text': '今天<extra_id_0>天气'}])
    assert answer['source'] == '今天<extra_id_0>天气' and answer['text'].startswith('今天')
