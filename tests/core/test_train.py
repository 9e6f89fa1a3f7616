"""The loop: what stops it, what it keeps, what it chooses, and what it takes from other runs."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from contract import assert_equal
from etils import epath
from slope import make_config, slope_task, start

import research
from research.checkpoint.store import finished_steps, read_weights
from research.core.config import base, read_config
from research.core.outcome import Stop
from research.core.recorder import check_weights
from research.core.state import eval_variables_from
from research.core.task import Metric, Variables
from research.data.batches import Row
from research.errors import UserError
from research.inference import model


def test_a_run_ends_with_metrics_records_and_a_report(tmp_path, capsys):
    summary = start(make_config(eval_every=4), tmp_path, slope_task())
    assert summary.metrics['test']['metrics']['error']['value'] < 0.1 and not summary.failures
    records = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    assert [record['step'] for record in records if record['kind'] == 'validation'] == [0, 4, 8, 12]
    losses = [record['values']['loss'] for record in records if record['kind'] == 'train']
    assert len(losses) == 12 and losses == sorted(losses, reverse=True)
    signature = summary.metrics['test']['signature']
    assert signature['split'] == 'test' and signature['examples'] == 4
    assert (tmp_path / 'report.html').exists() and 'next' in capsys.readouterr().out
    again = start(make_config(eval_every=4), tmp_path, slope_task())
    assert again.stop == Stop.ALREADY_DONE and again.metrics == summary.metrics


def uncounted(task, values):
    """The task, in which rows with one of `values` have no target."""

    def loss(variables, batch, context):
        counts = jnp.all(batch['x'][:, None] != jnp.asarray(values), axis=-1)
        return task.losses['model'](variables, {**batch, 'mask': batch['mask'] * counts}, context)

    return task._replace(losses={'model': loss})


def test_a_batch_in_which_no_target_counts_names_its_rows(tmp_path):
    with pytest.raises(UserError, match=r'the batch has no target .*loss has weight 0.* row 0; row 1; row 2; row 3$'):
        start(make_config(), tmp_path / 'none', uncounted(slope_task(), (1.0, 2.0, 3.0, 4.0)))
    assert not finished_steps(epath.Path(tmp_path) / 'none')
    summary = start(make_config(), tmp_path / 'one', uncounted(slope_task(), (1.0, 2.0, 3.0)))
    assert summary.stop == Stop.DONE


def test_an_empty_poisson_batch_and_a_skipped_update_are_no_error():
    task = slope_task()
    spec = SimpleNamespace(task=task, update_every={'model': 2}, rows=lambda step: [Row(1, 0, True)])
    check_weights({'loss': (0.0, 0.0)}, 1, spec)
    with pytest.raises(UserError, match='row 1'):
        check_weights({'loss': (0.0, 0.0)}, 2, spec)
    spec.rows = lambda step: [Row(0, None, False)]
    check_weights({'loss': (0.0, 0.0)}, 2, spec)


def test_metrics_outside_the_expected_range_fail(tmp_path, capsys):
    config = make_config()
    config = dataclasses.replace(config, expected={'test': {'error': (0.0, 0.001)}})
    summary = start(config, tmp_path, slope_task())
    assert summary.failures == ('test/error',) and 'FAIL' in capsys.readouterr().out


def test_a_loss_that_is_not_finite_stops_before_it_is_saved(tmp_path):
    with pytest.raises(UserError, match='step 8: .*loss.* is not a finite number; the last good checkpoint is step 6'):
        start(make_config(checkpoint_every=2), tmp_path, slope_task(explode_at=7))
    assert finished_steps(tmp_path) == [4, 6]
    assert np.isfinite(read_weights(tmp_path)['variables'].params['model']['kernel'])


def test_the_best_checkpoint_is_kept_and_measured(tmp_path):
    config = make_config(eval_every=2, checkpoint_every=2, best='error')
    worse = slope_task()
    worse = worse._replace(metrics=lambda sums: {'error': Metric(-sums['error'] / sums['count'], None, 'lower')})
    summary = start(config, tmp_path, worse)  # the first evaluation after a step is the best
    assert summary.metrics['test']['step'] == 2
    assert finished_steps(tmp_path) == [2, 10, 12]


def test_the_mean_of_the_last_checkpoints_is_measured_and_loaded(tmp_path):
    config = make_config(checkpoint_every=2, keep_last=3, average_checkpoints=3)
    summary = start(config, tmp_path, slope_task())
    kernels = [read_weights(tmp_path, step)['variables'].params['model']['kernel'] for step in (8, 10, 12)]
    entry = summary.metrics['test']
    assert entry['metrics']['error']['value'] == pytest.approx(abs(np.mean(kernels) - 2), rel=1e-5)
    assert entry['signature']['settings']['averaged_checkpoints'] == 3
    loaded = model.load(config, epath.Path(tmp_path), lambda config, folder: slope_task())
    np.testing.assert_allclose(loaded.variables.params['model']['kernel'], np.mean(kernels), rtol=1e-6)


def test_patience_stops_early_and_again_when_started_again(tmp_path):
    config = make_config(steps=100, eval_every=2, best='error', patience=3)
    task = slope_task()
    task = task._replace(metrics=lambda sums: {'error': Metric(1.0, None, 'lower')})
    assert start(config, tmp_path, task).step == 8
    assert start(config, tmp_path, task).step == 8


def test_a_finished_run_can_be_made_longer(tmp_path):
    start(make_config(steps=6), tmp_path / 'a', slope_task())
    start(make_config(steps=12), tmp_path / 'a', slope_task())
    start(make_config(steps=12), tmp_path / 'b', slope_task())
    assert_equal(read_weights(tmp_path / 'a')['variables'], read_weights(tmp_path / 'b')['variables'])


def test_a_look_at_a_finished_run_leaves_its_times_alone(tmp_path):
    start(make_config(steps=2), tmp_path, slope_task())
    before = (tmp_path / 'environment.json').read_text()
    assert start(make_config(steps=2), tmp_path, slope_task()).stop == Stop.ALREADY_DONE
    assert (tmp_path / 'environment.json').read_text() == before


@pytest.mark.slow
def test_the_times_of_earlier_starts_are_added_up(tmp_path):
    file, seconds, before = tmp_path / 'environment.json', [], []
    for steps in (2, 4, 6):
        start(make_config(steps=steps), tmp_path, slope_task())
        stored = json.loads(file.read_text())
        seconds.append(stored['seconds'])
        before.append(stored['seconds_before'])
    assert before == pytest.approx([0.0, seconds[0], seconds[0] + seconds[1]])
    assert seconds[0] > 0
    file.write_text('{"torn')
    start(make_config(steps=8), tmp_path, slope_task())
    assert json.loads(file.read_text())['seconds_before'] == 0.0


def test_another_config_in_the_same_folder_is_refused(tmp_path):
    start(make_config(steps=2), tmp_path, slope_task())
    with pytest.raises(UserError, match='train.batch_size: 8 there, 4 now'):
        start(make_config(steps=2, batch_size=4), tmp_path, slope_task())


def test_weights_of_another_run_are_taken_by_path(tmp_path, capsys):
    start(make_config(), tmp_path / 'first', slope_task())
    given = eval_variables_from(read_weights(tmp_path / 'first'), 'first')
    task = slope_task(load=lambda: given)
    start(make_config(steps=1), tmp_path / 'second', task)
    moved = read_weights(tmp_path / 'second')['variables'].params['model']['kernel']
    assert (
        abs(moved - 2) < abs(given.params['model']['kernel'] - 2)
        and '1 arrays were loaded' in capsys.readouterr().out
    )
    nothing = slope_task(load=lambda: Variables({'other': {'w': np.zeros(3)}}, {}))
    with pytest.raises(UserError, match='none of the given weights fit'):
        start(make_config(steps=1), tmp_path / 'third', nothing)


def test_groups_and_optimizers_must_go_together(tmp_path):
    config = base(groups=('model', 'critic'))
    config.train.update({'steps': 1, 'batch_size': 8})
    with pytest.raises(UserError, match='optimizer.critic: the task trains no such group'):
        start(read_config(config, {}), tmp_path, slope_task())


def test_batch_that_does_not_divide_over_the_devices(tmp_path):
    with pytest.raises(UserError, match='the nearest that do: 8 or 16'):
        start(make_config(batch_size=12), tmp_path, slope_task())


def test_restores_on_another_number_of_devices(tmp_path):
    config = make_config(steps=6)
    start(config, tmp_path, slope_task())
    from research.checkpoint.store import open_checkpoints
    from research.core.runspec import make_run_spec

    for count in (1, 4):
        spec = make_run_spec(config, slope_task(), jax.devices()[:count])
        checkpoints = open_checkpoints(epath.Path(tmp_path), 2)
        state, _, step = checkpoints.restore(spec.state)
        checkpoints.close()
        assert step == 6 and len(state.variables.params['model']['kernel'].sharding.device_set) == count


@pytest.mark.slow
def test_worker_processes_build_the_task_and_change_no_bit(tmp_path):
    ends = []
    for workers in (0, 1):
        settings = {'train.steps': '2', 'train.workers': str(workers), 'train.eval_every': '0', 'task.shift': '1'}
        research.run(research.read('configs/fashion_mlp.py:tiny', settings), str(tmp_path / str(workers)))
        ends.append(read_weights(tmp_path / str(workers))['variables'])
    assert_equal(*ends)


def test_workers_refuse_a_task_that_no_other_process_can_build(tmp_path):
    with pytest.raises(UserError, match='workers=1: this task cannot be built in another process'):
        start(make_config(workers=1), tmp_path, slope_task())


def test_a_run_may_measure_nothing(tmp_path):
    config = make_config(steps=2, eval_split='', test_split='', eval_every=1, sample_every=1)
    assert start(config, tmp_path, slope_task()).metrics == {}
