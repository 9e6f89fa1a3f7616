"""BERT's pre-training: what is asked and counted, answers to requests, errors, Chinese text."""

import jax
import numpy as np
import pytest
from text_tasks import answers, built, chinese, config, context, log_probabilities, metrics_of, rows

from research.errors import UserError
from research.tasks.masked_model import MASK, make

TASK = {'name': 'masked_model', 'vocabulary': 300, 'length': 32, 'top': 3, 'prompts': (f'import {MASK}\n',)}
MODEL = {'causal': False, 'head_transform': True, 'head_bias': True}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp('masked')


@pytest.fixture(scope='module')
def task(folder):
    return built(config(TASK, MODEL), folder)


@pytest.fixture(scope='module')
def variables(task):
    return jax.jit(task.init)(jax.random.key(0))


def test_rows_ask_for_hidden_tokens_anew_in_every_epoch(task):
    raw = task.source('train')[2]
    rowed = [task.encode(raw, np.random.default_rng([0, epoch, 2])) for epoch in (0, 1)]
    assert rowed[0]['positions'].tolist() != rowed[1]['positions'].tolist()
    fixed = [task.encode(raw), task.encode(raw)]
    for name in fixed[0]:
        np.testing.assert_array_equal(fixed[0][name], fixed[1][name])
    row = rowed[0]
    assert row['count'] == 5 and row['length'] == 32
    np.testing.assert_array_equal(row['targets'], raw['tokens'][row['positions']])
    text = task.describe(row)
    assert MASK in text['masked text'] and text['target'].count('shown as') == 5


def test_loss_and_metrics_count_what_is_asked_in_real_rows(task, variables):
    batch = rows(task, 4)
    batch['count'][1] = 2  # fewer words found
    batch['mask'][3] = 0
    total, aux = jax.jit(lambda v, b: task.losses['model'](v, b, context()))(variables, batch)
    picked = np.take_along_axis(log_probabilities(aux.outputs['logits']), batch['targets'][..., None], -1)[..., 0]
    counted = np.array([[1] * 5, [1, 1, 0, 0, 0], [1] * 5, [0] * 5])
    assert float(total) == pytest.approx(-(picked * counted).sum(), rel=1e-5) and aux.weight == 12
    metrics = metrics_of(task, variables, batch)
    assert metrics['loss'].value == pytest.approx(-(picked * counted).sum() / 12, rel=1e-5)
    assert set(metrics) == {'loss', 'perplexity', 'accuracy'} and metrics['accuracy'].baseline is not None


def test_padding_does_not_matter(task, variables):
    batch = {name: value[:1] for name, value in rows(task, 1).items()}
    batch['length'][:] = 20
    batch['positions'][:] = [1, 4, 9, 12, 19]
    run = jax.jit(lambda b: task.losses['model'](variables, b, context())[0])
    before = run(batch)
    batch['tokens'][:, 20:] = 7
    assert run(batch) == before
    batch['tokens'][:, 19] = 9  # while a later token is seen by all
    assert run(batch) != before


def test_answers_fill_masks_in_the_order_of_their_probability(task, variables):
    text = f'for i in {MASK}(10):\n  {MASK}'
    (answer,) = answers(task, variables, [{'text': text}])
    assert answer['masked'] == text.replace(f' {MASK}', MASK)  # the space belongs to the word
    assert len(answer['candidates']) == 2 and MASK not in answer['text']
    for candidates in answer['candidates']:
        shares = [each['probability'] for each in candidates]
        assert len(shares) == 3 and shares == sorted(shares, reverse=True) and 0 < sum(shares) <= 1
    first, second = (candidates[0] for candidates in answer['candidates'])
    assert answer['text'].startswith(f'for i in{first["token"]}(10)')
    assert first['text'] == answer['masked'].replace(MASK, first['token'], 1)  # the other token stays hidden
    assert second['text'].startswith(f'for i in{MASK}(10)') and second['text'].endswith(second['token'])
    assert all(isinstance(each['id'], int) for each in answer['candidates'][0])


@pytest.mark.parametrize(
    'text, message',
    [
        ('no mask', r'0 \[MASK\], and 1 to 5'),
        (MASK * 6, r'6 \[MASK\]'),
        ('', 'empty'),
        ('\x00\x01\x02\x03\x04\x05\x06\x07\x08' * 4 + MASK, '36 tokens; the model reads 32'),
        (f'{"ab" * 40000} {MASK}', 'characters'),
        ('\ud800' + MASK, 'half of a character'),
    ],
)  # fmt: skip
def test_impossible_requests_are_refused(task, text, message):
    with pytest.raises(UserError, match=message):
        task.encode({'text': text})


@pytest.mark.parametrize(
    'change, model, message',
    [
        ({'rate': 0.0}, {}, 'rate'),
        ({'mask_share': 0.9, 'random_share': 0.2}, {}, 'their sum must be at most 1'),
        ({'top': 301}, {}, 'exceeds the vocabulary'),
        ({'length': 0}, {}, 'length'),
        ({}, {'causal': True}, 'is bidirectional'),
        ({'whole_word': True}, {}, 'did you mean .whole_words'),
    ],
)
def test_impossible_settings_are_refused(folder, change, model, message):
    with pytest.raises(UserError, match=message):
        make(config({**TASK, **change}, {**MODEL, **model}), folder / 'prepared')


def test_chinese_characters_as_whole_words(tmp_path):
    values = chinese({**TASK, 'vocabulary': 340, 'whole_words': True, 'rate': 0.3}, MODEL)
    task = built(values, tmp_path)
    raw = task.source('train')[0]
    row = task.encode(raw)
    hidden = row['positions'][: row['count']]
    text = task.describe({'tokens': raw['tokens'], 'length': 32, 'count': 0})['masked text']
    assert any('\u4e00' <= each <= '\u9fff' for each in text)
    # a hidden character is hidden whole: its bytes are neighbours, and together they decode
    runs = np.split(hidden, np.flatnonzero(np.diff(hidden) != 1) + 1)
    shown = [{'tokens': raw['tokens'][run], 'length': len(run), 'count': 0} for run in runs]
    texts = [task.describe(row)['masked text'] for row in shown]
    inner = [text for run, text in zip(runs, texts, strict=True) if 0 < run[0] and run[-1] < 31]
    assert len(inner) > 1 and not any(text.startswith('\ufffd') and len(text) > 1 for text in inner)
    variables = jax.jit(task.init)(jax.random.key(0))
    (answer,) = answers(task, variables, [{'text': f'今天{MASK}很好'}])
    assert answer['masked'] == f'今天{MASK}很好' and len(answer['candidates']) == 1
