"""Question answering from end to end: learning, windows, published weights, missing answers, notes."""

import pathlib

import jax
import numpy as np
import pytest
from etils import epath

from research import api
from research.core.evaluate import make_evaluator
from research.core.predictions import decoded
from research.core.task import Context
from research.data.check.task import check_data
from research.data.text import pieces
from research.errors import UserError
from research.nn import span_models

FIXTURES = pathlib.Path(__file__).parent.parent / 'interop' / 'fixtures'
LONG = {'question': '李芳在哪里长大？', 'context': '王小明在北京长大。' * 8 + '李芳在厦门长大。'}


def built(folder, model=None, data=None, **task):
    """Returns the task of the config at ':tiny' with changes, and its config."""
    config = api.load_config('configs/squad.py:tiny')
    with config.unlocked():
        config.task.update(task)
        config.model = model or config.model
        config.data = data or config.data
    config = api.read(config)
    prepared = epath.Path(folder) / 'prepared'
    api.prepare(config, prepared)
    return api.build(config, prepared)


def answers_of(task, variables, raws, size=4):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ('data',))
    replicated = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    with jax.set_mesh(mesh):
        return [answer for _, answer in decoded(task, make_evaluator(task, 0, size, replicated), variables, raws)]


@pytest.mark.parametrize('model', [
    None, {'name': 'transformer', 'width': 16, 'layers': 1, 'heads': 2},
])  # fmt: skip
def test_a_step_along_the_gradient_lowers_the_loss(tmp_path, model):
    task = built(tmp_path, model)
    variables = jax.jit(task.init)(jax.random.key(0))
    rows = task.source('train')
    examples = [task.encode(rows[number], np.random.default_rng(number)) for number in range(8)]
    batch = {name: np.stack([each[name] for each in examples]) for name in examples[0]}
    batch |= {'mask': np.ones(8, np.float32), 'index': np.arange(8)}
    context = Context(jax.random.key(1), 0, False)

    @jax.jit
    def loss(params):
        return task.losses['model'](variables._replace(params=params), batch, context)[0] / 8

    value, gradient = jax.jit(jax.value_and_grad(loss))(variables.params)
    size = sum(float(np.sum(np.square(leaf))) for leaf in jax.tree.leaves(gradient))
    stepped = jax.tree.map(lambda leaf, slope: leaf - 1e-3 / size * slope, variables.params, gradient)
    assert loss(stepped) < value
    sums = jax.jit(task.metric_sums)(variables, batch, context)
    metrics = task.metrics({name: np.asarray(each, np.float64) for name, each in sums.items()})
    assert float(metrics['loss'].value) == pytest.approx(float(value), rel=1e-4)
    score, _ = task.score(variables, batch, context)
    assert -float(score.mean()) == pytest.approx(float(value), rel=1e-4)
    claimed = task.claim(batch, task.predict(variables, batch, context))
    assert (np.asarray(claimed['end']) >= np.asarray(claimed['start'])).all()
    assert (task.score(variables, claimed, context)[0] >= score - 20).all()


def test_a_long_context_is_answered_by_a_part_of_it_whatever_the_batch(tmp_path):
    task = built(tmp_path, no_answer=False)
    variables = jax.jit(task.init)(jax.random.key(0))
    assert len(task.split(LONG)) > 2
    requests = [LONG, {'question': '谁？', 'context': '李芳'}, {**LONG, 'context': '👍🏽王\r\n李芳'}]
    first, second = answers_of(task, variables, requests, 2), answers_of(task, variables, requests, 5)
    for one, other, raw in zip(first, second, requests, strict=True):
        assert one['answer'] == other['answer'] == raw['context'][one['start'] : one['stop']] != ''
        assert one['score'] == pytest.approx(other['score'], abs=1e-3)


def test_metrics_of_questions_with_and_without_an_answer(tmp_path):
    task = built(tmp_path)
    context = 'Ada ran. Bela slept all day.'
    rows = [
        ({'question': 'Who slept?', 'context': context, 'answers': ['Bela']}, 'Bela', -1.0),
        ({'question': 'Who ran?', 'context': context, 'answers': ['Ada', 'Ada ran']}, 'Ada', 3.0),
        ({'question': 'Who flew?', 'context': context, 'answers': []}, 'Ada', 2.0),
        ({'question': 'Who swam?', 'context': context, 'answers': []}, 'Bela', -2.0),
    ]
    answers = [
        (
            raw,
            {'answer': text if none <= 0 else '', 'no_answer_score': none, 'n_best': [{'answer': text, 'score': 0.0}]},
        )
        for raw, text, none in rows
    ]
    metrics = task.finalize(iter(answers))
    values = {name: metric.value for name, metric in metrics.items()}
    assert (values['exact'], values['f1']) == (50, 50)  # the first and the third
    assert (values['has_answer_f1'], values['no_answer_f1']) == (50, 50)
    assert values['best_f1'] == values['best_exact'] == 50 and metrics['best_f1'].baseline == 50
    assert metrics['f1'].baseline == pytest.approx((40 + 100) / 4)  # 'Bela slept all day.' and 'Ada ran.'


def test_published_weights_answer_with_their_own_tokens(tmp_path):
    rows = ['the fox\tthe quick brown fox jumped over the fox .\tbrown fox', 'the fox\tthe quick fox .\tquick']
    table = tmp_path / 'rows.tsv'
    table.write_text('question\tcontext\tanswer\n' + '\n'.join(rows * 4) + '\n', encoding='utf-8')
    paths = {split: str(table) for split in ('train', 'validation', 'test')}
    model = {'name': 'transformer', 'weights': str(FIXTURES / 'bert')}
    task = built(tmp_path, model, {'reader': 'tsv', **paths}, length=14, question_length=3, stride=4, no_answer=False)
    loaded, initial = task.load(), jax.eval_shape(task.init, jax.random.key(0))
    shapes = {name: leaf.shape for name, leaf in initial.params['model']['encoder']['tokens'].items()}
    assert {name: leaf.shape for name, leaf in loaded.params['model']['encoder']['tokens'].items()} == shapes
    variables = jax.jit(task.init)(jax.random.key(0))
    raw = task.source('test')[0]
    row = task.encode(raw)
    assert task.describe(row)['answer'] == 'brown fox' and 'shapes' not in row and set(row['types']) == {0, 1}
    assert answers_of(task, variables, [raw])[0]['answer'] in raw['context']
    with pytest.raises(UserError, match='config.task.length asks for 24 positions'):
        built(tmp_path / 'long', model, {'reader': 'tsv', **paths}, length=24, question_length=3, stride=4)


def test_notes_count_what_is_not_trained(tmp_path):
    (note, *_) = built(tmp_path, no_answer=False).notes()
    assert 'windows do not contain the answer and are trained on "no answer"' in note
    notes = built(tmp_path / 'other', no_answer=False, other_windows=False, question_length=4).notes()
    assert 'left out' in notes[0] and 'questions are cut to 4 tokens' in notes[1]
    assert 'training questions have no answer, but config.task.no_answer is false' in notes[-1]


@pytest.mark.parametrize(('changes', 'message'), [
    ({'stride': 40}, 'config.task.stride must be at most'), ({'n_best': 0}, 'config.task.n_best must be above zero'),
    ({'metric': 'letters'}, 'config.task.metric'), ({'longest_answer': 0}, 'longest_answer must be above zero'),
    ({'buckets': (64,)}, 'config.task.buckets must ascend'),
])  # fmt: skip
def test_impossible_settings_are_refused(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        built(tmp_path, **changes)


def test_shapes_of_words_have_their_embeddings():
    assert span_models.SHAPE_KINDS == len(pieces.SHAPES)


def test_a_data_check_counts_questions_and_finds_no_copies_among_their_windows():
    surveys, findings = check_data(api.read('configs/squad.py:tiny'), api.prepare, api.build)
    rows = api.load_config('configs/squad.py:tiny').data.rows
    assert surveys[0].total == len(surveys[0].keys) == rows == len(set(surveys[0].keys))
    assert not any(finding.level == 'error' or 'copies' in finding.text for finding in findings)
