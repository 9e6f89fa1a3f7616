"""What privacy refuses, how it composes, and what a private run says and stores."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import batch_of
from etils import epath
from privacy_task import CONTEXT, assert_close, loss, make_batch, make_params, private_task, run_plan

from research import api
from research.checkpoint.store import read_weights
from research.core import train
from research.core.private import draw_secret, read_secret
from research.core.runspec import make_run_spec
from research.core.startup import check_account
from research.core.task import Aux, Gradient, Variables
from research.errors import UserError, unpack
from research.methods import lora, privacy
from research.ops import accounting


def with_statistics(names):
    def init(key):
        extra = {'model': {name: {'mean': jnp.zeros(())} for name in names}}
        return Variables({'model': jax.tree.map(jnp.asarray, make_params())}, extra)

    def keeps(variables, batch, context):
        total, aux = loss(variables.params['model'], batch, context)
        return total, aux._replace(
            extra={'model': {name: {'mean': jnp.mean(batch['target'])} for name in names}}
        )

    return {'init': init, 'losses': {'model': keeps}}


def test_batch_statistics_are_refused_and_the_group_norm_named():
    with pytest.raises(UserError, match="privacy.*'model' keeps some.*config.model.norm=group"):
        private_task(**with_statistics(['batch_stats']))
    task, config = private_task(**with_statistics(['moving']))
    with pytest.raises(UserError, match='privacy has no noise for what a loss keeps.*model/moving'):
        make_run_spec(config, task, jax.devices()[:1]).compile()


def test_what_cannot_be_private_is_refused():
    with pytest.raises(UserError, match="no group 'generater'; did you mean 'generator'"):
        private_task(privacy.Settings(public=('generater',)), groups=('model', 'generator'))
    with pytest.raises(UserError, match='nothing is left to be private'):
        private_task(privacy.Settings(public=('model',)))
    with pytest.raises(
        UserError, match="privacy and a method before it both replace the gradient of 'model'"
    ):
        private_task(gradients={'model': Gradient(None, None)})
    for delta, rows in ((0.02, 64), (1.0 / 64, 64)):
        task, _ = private_task(privacy.Settings(delta=delta), rows=rows)
        with pytest.raises(
            UserError, match='delta=0.0[12].* must be below 0.016, one over the 64 training rows'
        ):
            task.budget(0)
    for settings, message in (
        ({'clip': 0.0}, 'clip'), ({'noise_multiplier': 0.0}, 'noise_multiplier'), ({'delta': 0.0}, 'delta'),
        ({'epsilon': -1.0}, 'epsilon'), ({'chunk': -1}, 'chunk'),
        ({'epsilon': 1.0, 'noise_multiplier': 2.0}, 'not both'),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            unpack(privacy.Settings, settings, 'privacy')


def test_a_missing_library_is_said_before_anything_compiles(monkeypatch):
    task, config = private_task()
    monkeypatch.setitem(__import__('sys').modules, 'dp_accounting', None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[privacy\]'"):
        make_run_spec(config, task, jax.devices()[:1])


def game(reads_label):
    """A generator that reads noise alone, or a row's target too; the model judges rows and what it made."""

    def init(key):
        return Variables({'model': {'w': jnp.ones(3)}, 'generator': {'v': jnp.ones(3)}}, {})

    def made(variables, batch, context):
        def one(index):
            return jax.random.normal(jax.random.fold_in(context.fold('noise'), index), (3,))

        noise = jax.vmap(one)(batch['index']) * variables.params['generator']['v']
        return noise + batch['target'] if reads_label else noise

    def model(variables, batch, context):
        real, fake = (
            x @ variables.params['model']['w'] for x in (batch['target'], made(variables, batch, context))
        )
        return jnp.sum(batch['mask'] * (jax.nn.softplus(-real) + jax.nn.softplus(fake))), Aux(
            jnp.sum(batch['mask'])
        )

    def generator(variables, batch, context):
        fake = made(variables, batch, context) @ variables.params['model']['w']
        return jnp.sum(batch['mask'] * jax.nn.softplus(-fake)), Aux(
            jnp.sum(batch['mask']), outputs=batch['target']
        )

    return {'init': init, 'losses': {'model': model, 'generator': generator}}


def test_a_public_group_cannot_read_the_rows():
    settings, groups = privacy.Settings(public=('generator',), delta=1e-3), ('model', 'generator')
    task, config = private_task(settings, groups=groups, **game(reads_label=True))
    with pytest.raises(
        UserError, match="privacy.public: the loss of group 'generator' reads target of the rows"
    ):
        make_run_spec(config, task, jax.devices()[:1]).compile()
    task, config = private_task(settings, 'poisson', groups=groups, **game(reads_label=False))
    assert list(task.gradients) == ['model']
    variables = task.init(None)
    total = functools.partial(task.losses['generator'], variables, context=CONTEXT)
    first, second = make_batch(8, masked=2), make_batch(8, masked=5, seed=9)  # other rows, numbers and masks
    np.testing.assert_array_equal(total(batch=first)[0], total(batch=second)[0])
    params, logs = run_plan(task, config, 2)
    assert not np.array_equal(params['generator']['v'], np.ones(3)) and np.isfinite(logs['generator/loss'][0])


def test_both_groups_private_spend_more():
    settings, groups = privacy.Settings(delta=1e-3), ('model', 'generator')
    both, config = private_task(settings, 'poisson', groups=groups, **game(reads_label=True))
    assert sorted(both.gradients) == ['generator', 'model']
    one, _ = private_task(
        privacy.Settings(delta=1e-3, public=('generator',)),
        'poisson',
        groups=groups,
        **game(reads_label=False),
    )
    twice, _ = private_task(
        privacy.Settings(delta=1e-3, public=('generator',), noise_multiplier=1 / np.sqrt(2)), 'poisson',
        groups=groups, **game(reads_label=False),
    )  # fmt: skip
    assert one.budget(10)['epsilon'] < both.budget(10)['epsilon']
    np.testing.assert_allclose(both.budget(10)['epsilon'], twice.budget(10)['epsilon'], rtol=1e-6)


@pytest.mark.slow
def test_it_composes_with_adapters_in_either_order():
    private, config = private_task()
    plain = private._replace(gradients={}, budget=None, notes=None)
    settings = lora.Settings(rank=2, alpha=4.0)
    first = lora.apply(private, settings, config)
    second = privacy.apply(lora.apply(plain, settings, config), privacy.Settings(delta=1e-3), config)
    trained = []
    for task in (first, second):
        assert list(task.losses) == list(task.gradients) == ['model']
        params, logs = run_plan(task, config, 2)
        assert set(params) == {'model', 'model_base'} and 'kernel' in params['model']['conv']
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((params, logs)))
        jax.tree.map(np.testing.assert_array_equal, params['model_base'], make_params())
        assert task.budget(10)['epsilon'] > 0
        trained.append(params)
    assert_close(*trained, 1e-6)


def start(config, folder, task):
    folder, observers = epath.Path(folder), api.observers()
    return train.run(config, folder, lambda config, folder: None, lambda config, folder: task, observers)


def test_epsilon_is_shown_logged_and_stored(tmp_path, capsys):
    task, config = private_task(privacy.Settings(epsilon=2.0, delta=1e-3), 'poisson')
    summary = start(config, tmp_path, task)
    printed = capsys.readouterr().out
    assert 'note: model is trained privately: epsilon 2 at delta 0.001 after 10 steps' in printed
    assert 'note: not private: the logged losses' in printed
    records = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    spent = {each['step']: each['values']['epsilon'] for each in records if each['kind'] == 'train'}
    assert list(spent) == [2, 4, 6, 8, 10] and sorted(spent.values()) == list(spent.values())
    assert 1.96 < spent[10] <= 2.0 and f'epsilon {spent[4]:.4g}' in printed
    assert summary.metrics['test']['signature']['account'] == {'epsilon': spent[10], 'delta': 1e-3}
    stored = json.loads((tmp_path / 'metrics.json').read_text())
    assert stored['validation']['signature']['account']['epsilon'] == spent[10]
    assert any(
        'not private' in note for note in json.loads((tmp_path / 'description.json').read_text())['notes']
    )


@pytest.mark.slow
def test_a_run_made_longer_keeps_its_noise_or_is_refused(tmp_path):
    """Noise that was computed for fewer steps would be too little, and the account of the old steps wrong."""
    settings = privacy.Settings(epsilon=2.0, delta=1e-3)
    task, config = private_task(settings, 'poisson', steps=4)
    start(config, tmp_path, task)
    task, longer = private_task(settings, 'poisson', steps=8)
    with pytest.raises(UserError, match='the budget changed: the checkpoint at step 4 spent epsilon'):
        start(longer, tmp_path, task)
    given = privacy.Settings(noise_multiplier=2.0, delta=1e-3)
    before = private_task(given, 'poisson', steps=4)[0].budget(4)
    task, longer = private_task(given, 'poisson', steps=8)
    check_account(make_run_spec(longer, task, jax.devices()[:1]), before, 4)


def test_a_served_model_needs_no_data_and_no_library(monkeypatch):
    def source(split):
        raise UserError('there is no training data here')

    monkeypatch.setattr(accounting, 'library', source)
    task, _ = private_task(source=source)
    variables = task.init(None)
    assert np.isfinite(task.predict(variables, make_batch(), CONTEXT)['error']).all()


def test_nothing_of_a_private_run_shows_a_training_row(tmp_path, capfd):
    planted = 'the zebra quarrelled about seventeen violet umbrellas'
    plain = [(f'sentence number {number} is fine', ('bad', 'good')[number % 2]) for number in range(80)]
    rows = [(planted, 'bad'), *plain]
    for split in ('train', 'validation', 'test'):
        kept = rows if split == 'train' else [(f'quite {text}', label) for text, label in plain]
        lines = ['text,label', *(f'{text},{label}' for text, label in kept)]
        (tmp_path / f'{split}.csv').write_text('\n'.join(lines))
    overrides = {
        'data.name': '', 'data.reader': 'csv', 'methods': 'privacy', 'privacy.delta': '1e-3', 'train.epochs': '0',
        'train.steps': '2', 'train.eval_every': '1', 'train.sample_every': '1', 'train.checkpoint_every': '1',
        **{f'data.{split}': str(tmp_path / f'{split}.csv') for split in ('train', 'validation', 'test')},
    }  # fmt: skip
    runs = []
    for number in range(2):
        workdir = tmp_path / f'run{number}'
        api.run(api.read('configs/sst2.py:tiny', overrides), str(workdir))
        for file in (path for path in workdir.rglob('*') if path.is_file()):
            content = file.read_bytes()
            assert planted.encode() not in content and planted.encode('utf-16-le') not in content, file
            assert file.parent.name == 'prepared' or b'umbrellas' not in content, file
        assert not (workdir / 'secret.json').exists()  # the run is finished
        manifest = json.loads((workdir / 'checksums' / '2.json').read_text())
        assert manifest['data']['train'] == {'rows': 81} and 'sha256' in manifest['data']['test']
        runs.append(read_weights(workdir)['variables'].params)
    printed = capfd.readouterr().out
    assert 'umbrellas' not in printed and 'prepared/ (' in printed and 'read from the training split' in printed
    leaves = zip(*map(jax.tree.leaves, runs), strict=True)
    assert any(not np.array_equal(one, other) for one, other in leaves)  # the same seed, other noise


def test_a_private_run_continues_with_its_own_noise(tmp_path):
    """Killed after a step, it ends with the same bits as one with the same secret that was not."""
    task, config = private_task(privacy.Settings(delta=1e-3), 'poisson', steps=4)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, checkpoint_every=2))
    folder = epath.Path(tmp_path)
    (folder / 'a').mkdir()
    draw_secret(folder / 'a')
    secret = read_secret(folder / 'a')
    assert (tmp_path / 'a' / 'secret.json').stat().st_mode & 0o777 == 0o600
    draw_secret(folder / 'a')
    assert read_secret(folder / 'a') == secret  # drawn once
    spec = make_run_spec(config, task, jax.devices()[:1], secret)
    ends = []
    for interrupted in (False, True):
        compiled, state = spec.compile(), spec.init()
        for step in range(4):
            if interrupted and step == 2:
                compiled = make_run_spec(config, task, jax.devices()[:1], read_secret(folder / 'a')).compile()
            state, _ = compiled(state, batch_of(spec, step))
        ends.append(jax.device_get(state.variables.params))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    other = make_run_spec(config, task, jax.devices()[:1], secret._replace(words=(1, 2)))
    state = other.compile()(other.init(), batch_of(spec, 0))[0]
    assert other.rows(0) == spec.rows(0) != make_run_spec(config, task, jax.devices()[:1]).rows(0)
    first = spec.compile()(spec.init(), batch_of(spec, 0))[0]
    assert not np.array_equal(*(jax.tree.leaves(each.variables.params)[0] for each in (state, first)))
