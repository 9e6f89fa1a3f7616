"""A run that is killed, looked at, damaged or given other data: what it takes for finished, and what it refuses."""

import json

import numpy as np
import pytest
from etils import epath
from slope import make_config, slope_task, start

from research.core import train
from research.core.config import stored_values
from research.core.finish import MARKER_FILE
from research.core.logs import read_records
from research.core.metrics import read_metrics, store_metrics
from research.core.outcome import Stop
from research.core.task import Metric
from research.errors import UserError
from research.inference import model


def flip(file, position=None):
    """Flips one bit of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    file.write_bytes(bytes(data))


def test_metrics_of_an_earlier_moment_do_not_pass_for_final_ones(tmp_path):
    summary = start(make_config(), tmp_path, slope_task())
    entry = read_metrics(tmp_path)['test']
    value = entry['metrics']['error']['value']
    # As after `evaluate` on an earlier step, and a kill between the last checkpoint and the metrics:
    entry['metrics']['error']['value'] = 0.75
    store_metrics(epath.Path(tmp_path), {'test': entry})
    (tmp_path / MARKER_FILE).unlink()
    again = start(make_config(), tmp_path, slope_task())
    assert again.stop == Stop.DONE and again.metrics['test']['metrics']['error']['value'] == value
    assert start(make_config(), tmp_path, slope_task()).stop == Stop.ALREADY_DONE
    assert summary.metrics['test']['metrics'] == again.metrics['test']['metrics']


def test_the_marker_names_the_settings(tmp_path):
    start(make_config(), tmp_path, slope_task())
    assert start(make_config(test_split=''), tmp_path, slope_task()).stop == Stop.DONE  # measured anew
    assert start(make_config(test_split='', log_every=3), tmp_path, slope_task()).stop == Stop.ALREADY_DONE
    flip(tmp_path / MARKER_FILE)
    assert start(make_config(test_split='', log_every=3), tmp_path, slope_task()).stop == Stop.DONE


def test_a_changed_bit_in_stored_metrics_is_measured_again(tmp_path):
    summary = start(make_config(), tmp_path, slope_task())
    file = tmp_path / 'metrics.json'
    text = file.read_text()
    value = f'"value": {summary.metrics["test"]["metrics"]["error"]["value"]!r}'
    assert value in text
    file.write_text(text.replace(value, '"value": 0.123'))
    assert 'test' not in read_metrics(epath.Path(tmp_path))
    again = start(make_config(), tmp_path, slope_task())
    assert again.metrics['test']['metrics'] == summary.metrics['test']['metrics']


def kinds(folder):
    return [(record['step'], record['kind']) for record in read_records(folder / 'metrics.jsonl')]


def test_a_kill_at_the_end_or_an_early_stop_doubles_no_record(tmp_path):
    settings = {'eval_every': 2, 'best': 'error', 'patience': 3, 'steps': 100, 'checkpoint_every': 2}
    task = slope_task()._replace(metrics=lambda sums: {'error': Metric(1.0, None, 'lower')})
    assert start(make_config(**settings), tmp_path, task).stop == Stop.PATIENCE
    once = kinds(tmp_path)
    assert len(set(once)) == len(once) and once[-1] == (2, 'test')
    for _ in range(2):
        (tmp_path / MARKER_FILE).unlink()  # killed before the last write
        again = start(make_config(**settings), tmp_path, task)
        assert (again.stop, again.step) == (Stop.PATIENCE, 8) and kinds(tmp_path) == once
    assert start(make_config(**settings), tmp_path, task).stop == Stop.ALREADY_DONE


def test_means_after_a_resume_cover_the_steps_before_the_checkpoint(tmp_path, monkeypatch):
    config = make_config(log_every=6, checkpoint_every=4, steps=6)
    start(config, tmp_path / 'whole', slope_task())
    with pytest.raises(UserError, match='step 5'):
        start(config, tmp_path / 'killed', slope_task(explode_at=4))
    start(config, tmp_path / 'killed', slope_task())
    losses = [
        [record['values']['loss'] for record in read_records(tmp_path / name / 'metrics.jsonl') if
         record['kind'] == 'train'] for name in ('whole', 'killed')
    ]  # fmt: skip
    assert len(losses[0]) == 1 and losses[0] == losses[1]


def build(task):
    return lambda config, folder: task


def test_other_rows_are_refused_after_a_saved_step_and_prepared_anew_before(tmp_path, capsys):
    prepared = []

    def prepare(config, folder):
        prepared.append(1)
        (folder / 'mean.txt').write_text('x')

    def run(data, **settings):
        return train.run(make_config(**settings), epath.Path(tmp_path), prepare, build(slope_task(data)))

    (tmp_path / 'prepared').mkdir()
    with pytest.raises(UserError, match='no config.json'):
        run((1.0, 2.0))
    (tmp_path / 'prepared').rmdir()
    with pytest.raises(UserError, match='not a finite number'):
        train.run(make_config(), epath.Path(tmp_path), prepare, build(slope_task((1.0, 2.0), explode_at=0)))
    run((1.0, 2.0, 4.0), steps=2)
    assert len(prepared) == 2 and "'train' had 2 rows and now has 3; preparing again" in capsys.readouterr().out
    for data, message in (
        ((1.0, 2.0, 4.0, 5.0), "the split 'train' had 3 rows and now has 4"),
        ((1.0, 2.0, 4.5), "the 3 rows of the split 'train' have other content"),
    ):
        with pytest.raises(UserError, match=f'{message}.*train in another --workdir'):
            run(data, steps=4)
    assert run((1.0, 2.0, 4.0), steps=4).step == 4 and len(prepared) == 2


@pytest.mark.parametrize('name', ['prepared/mean.txt', 'prepared/splits.json', 'prepared/done'])
def test_a_changed_prepared_file_is_named(tmp_path, name):
    def prepare(config, folder):
        (folder / 'mean.txt').write_text('14.5')

    task = slope_task()
    train.run(make_config(steps=2), epath.Path(tmp_path), prepare, build(task))
    manifest = json.loads((tmp_path / 'checksums' / '2.json').read_text())
    inner = ('done', 'mean.txt', 'splits.json')
    assert set(manifest['run']) == {'config.json', *(f'prepared/{each}' for each in inner)}
    assert manifest['data']['train']['rows'] == 4
    model.load(make_config(steps=2), epath.Path(tmp_path), build(task))
    file = tmp_path / name
    if file.stat().st_size:
        flip(file)
    else:
        file.write_text('x')
    for use in (
        lambda: model.load(make_config(steps=2), epath.Path(tmp_path), build(task)),
        lambda: train.run(make_config(steps=4), epath.Path(tmp_path), prepare, build(task)),
    ):
        with pytest.raises(UserError, match=f'{name} has .* since step 2 was saved'):
            use()


def test_every_changed_byte_of_the_config_is_noticed(tmp_path):
    config = make_config(steps=2)
    start(config, tmp_path, slope_task())
    file = tmp_path / 'config.json'
    whole = file.read_bytes()
    for position in range(0, len(whole), 29):
        if whole[position : position + 1].isspace():
            continue
        flip(file, position)
        with pytest.raises(UserError, match='config.json is damaged'):
            stored_values(epath.Path(tmp_path) / 'config.json')
        file.write_bytes(whole)
    start(make_config(steps=4), tmp_path, slope_task())  # writes it anew, with another number of steps
    assert stored_values(epath.Path(tmp_path) / 'config.json')['train']['steps'] == 4
    values = json.loads(file.read_text())
    del values['sha256']  # as version 0.1 wrote it
    file.write_text(json.dumps(values))
    assert stored_values(epath.Path(tmp_path) / 'config.json')['train']['steps'] == 4


def test_a_run_of_version_0_1_goes_on(tmp_path):
    start(make_config(steps=4), tmp_path, slope_task())
    from research.ops.seal import sealed

    file = tmp_path / 'checksums' / '4.json'
    old = {name: value for name, value in json.loads(file.read_text()).items() if name not in ('sha256', 'run', 'data')}
    old['meta'] = {name: old['meta'][name] for name in ('best_value', 'best_step', 'since', 'account', 'best')}
    file.write_text(json.dumps(sealed(old)))
    (tmp_path / 'prepared' / 'splits.json').unlink()
    (tmp_path / MARKER_FILE).unlink()
    assert model.load(make_config(steps=4), epath.Path(tmp_path), build(slope_task())).step == 4
    assert start(make_config(steps=6), tmp_path, slope_task()).step == 6
    assert json.loads((tmp_path / 'checksums' / '6.json').read_text())['data']['train']['rows'] == 4


def test_metrics_that_cannot_be_computed_cost_no_run(tmp_path, capsys):
    def metrics(sums):
        raise np.linalg.LinAlgError('singular matrix')

    task = slope_task()._replace(metrics=metrics)
    summary = start(make_config(eval_every=4, best='error'), tmp_path, task)
    assert summary.step == 12 and summary.metrics['test']['failed'] == {'metrics': 'LinAlgError: singular matrix'}
    assert 'metrics could not be computed: LinAlgError: singular matrix' in capsys.readouterr().out
    assert 'could not be computed: LinAlgError' in (tmp_path / 'report.html').read_text()
    assert start(make_config(eval_every=4, best='error'), tmp_path, task).stop == Stop.ALREADY_DONE


def test_a_metric_of_all_predictions_chooses_the_best_step(tmp_path):
    values = iter([0.5, 0.5, 0.9, 0.7, 0.6, *[0.6] * 9])  # step 0 is never chosen
    task = slope_task()._replace(finalize=lambda pairs: {'ap': Metric(next(values) + 0 * len(list(pairs)), None)})
    summary = start(make_config(eval_every=2, steps=8, best='ap'), tmp_path, task)
    assert summary.metrics['test']['step'] == 4
    curve = [r['values'].get('ap') for r in read_records(tmp_path / 'metrics.jsonl') if r['kind'] == 'validation']
    assert curve == [0.5, 0.5, 0.9, 0.7, 0.6]


def test_leftovers_of_kills_are_removed(tmp_path):
    start(make_config(steps=2), tmp_path, slope_task())
    for name in ('report.html.part', 'metrics.json.part', 'samples/00000002/examples.json.part'):
        (tmp_path / name).write_text('half')
    (tmp_path / 'damaged' / '1').mkdir(parents=True)
    (tmp_path / 'environment.json').unlink()
    (tmp_path / MARKER_FILE).unlink()
    start(make_config(steps=2), tmp_path, slope_task())
    assert not list(tmp_path.rglob('*.part')) and not (tmp_path / 'damaged').exists()
    assert (tmp_path / 'environment.json').exists()


def test_a_folder_with_brackets_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match='must not contain'):
        start(make_config(), tmp_path / 'run[1]', slope_task())
    assert not list(tmp_path.iterdir())
