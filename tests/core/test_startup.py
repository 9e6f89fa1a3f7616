"""The folder of a run: whose files are in it, who may train there, and what a correction may change."""

import importlib.util
import json
import multiprocessing
import os

import pytest
from etils import epath

from research import api
from research.core.logs import read_records
from research.core.metrics import read_metrics
from research.core.recorder import Best, best_of
from research.core.startup import differences, run_lock, store_config
from research.errors import UserError
from research.locations import run_folder

TINY = 'configs/digits.py:tiny'


@pytest.mark.parametrize('name', ['prepared/mine.csv', 'checkpoints/1000/model.pt', 'metrics.jsonl'])
def test_a_folder_with_somebody_elses_files_is_left_run_lock(tmp_path, name):
    file = tmp_path / 'mine' / name
    file.parent.mkdir(parents=True)
    file.write_text('x')
    with pytest.raises(UserError, match=f'mine already contains {name.split("/")[0]} but no config.json'):
        store_config(api.read(TINY), epath.Path(tmp_path / 'mine'))
    assert file.read_text() == 'x' and not (tmp_path / 'mine' / 'config.json').exists()


def test_before_a_step_is_saved_a_setting_may_be_corrected_and_data_are_prepared_anew(tmp_path):
    folder = epath.Path(tmp_path / 'run')
    store_config(api.read(TINY), folder)
    (folder / 'prepared').mkdir()
    (folder / 'prepared' / 'done').write_text('')
    store_config(api.read(TINY, {'seed': '1'}), folder)
    assert json.loads((folder / 'config.json').read_text())['seed'] == 1 and not (folder / 'prepared').exists()
    (folder / 'checksums').mkdir()
    (folder / 'checksums' / '2.json').write_text('{}')
    with pytest.raises(UserError, match='contains a run with another config:\n  seed: 1 there, 0 now'):
        store_config(api.read(TINY), folder)
    store_config(api.read(TINY, {'seed': '1', 'train.best': 'accuracy'}), folder)  # which step is chosen may change


def test_a_folder_that_cannot_hold_a_run_is_named(tmp_path):
    (tmp_path / 'file').write_text('x')
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(UserError, match=f'--workdir={folder}: a file of this name exists'), run_lock(
            epath.Path(folder)
        ):
            pass
    with pytest.raises(UserError, match='is not a run folder: there is no such folder'):
        api.read_run(tmp_path / 'nowhere')
    with pytest.raises(UserError, match='is not a run folder: it has no config.json'):
        api.read_run(tmp_path)


def test_an_object_store_without_its_package_is_one_message(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='gs://bucket/run: the package gcsfs is needed for gs:// paths'):
        run_folder('gs://bucket/run')
    assert os.fspath(run_folder('~/x')) == os.path.expanduser('~/x')


def test_of_a_section_with_another_name_only_the_name_is_reported():
    old = {'data.name': 'digits', 'model.name': 'mlp', 'model.widths': [8], 'seed': 1, 'train.steps': 3}
    new = {'data.name': 'digits', 'model.name': 'resnet', 'model.depths': [2], 'train.steps': 4}
    assert differences(old, new) == ["  model.name: 'mlp' there, 'resnet' now", '  seed: 1 there, not set now']


def test_damaged_files_of_a_run_are_named_or_made_anew(tmp_path):
    folder = epath.Path(tmp_path)
    (folder / 'config.json').write_text('{"seed": ')
    with pytest.raises(UserError, match='config.json is damaged'):
        store_config(api.read(TINY), folder)
    with pytest.raises(UserError, match='config.json is damaged'):
        api.read_run(folder)
    (folder / 'metrics.json').write_text('{"test": ')
    assert read_metrics(folder) == {}


def hold(folder, started, finish):
    """Trains there, as far as another process can tell."""
    with run_lock(epath.Path(folder)):
        started.set()
        finish.wait(60)


def test_a_second_process_is_told_that_one_trains_there_until_it_ends(tmp_path):
    context = multiprocessing.get_context('spawn')
    started, finish = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path / 'run'), started, finish))
    process.start()
    try:
        assert started.wait(120)
        with pytest.raises(UserError, match='run: another process is training there'):
            run_lock(epath.Path(tmp_path / 'run')).__enter__()
    finally:
        process.kill()  # without a chance to clean up
        process.join()
    with run_lock(epath.Path(tmp_path / 'run')):
        pass


def test_another_metric_that_chooses_begins_without_a_best_value():
    meta = {'best_value': 0.5, 'best_step': 4, 'since': 1, 'best': 'accuracy'}
    assert best_of(meta, 'accuracy') == Best(0.5, 4, 1) and best_of(meta, 'loss') == Best()


@pytest.mark.slow
def test_a_misspelt_metric_does_not_cost_what_was_trained(tmp_path):
    wrong = {'train.best': 'acuracy', 'train.eval_every': '0', 'train.checkpoint_every': '0'}
    with pytest.raises(UserError, match="config.train.best='acuracy': validation has the metrics accuracy"):
        api.run(TINY, tmp_path / 'run', wrong)
    steps = [int(file.stem) for file in (tmp_path / 'run' / 'checksums').iterdir()]
    assert steps == [api.read(TINY).train.steps]
    assert api.run(TINY, tmp_path / 'run', {**wrong, 'train.best': 'accuracy'}).step == steps[0]


@pytest.mark.slow
def test_a_misspelt_metric_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(UserError, match="config.train.best='acuracy': validation has the metrics accuracy"):
        api.run(TINY, tmp_path / 'run', {'train.best': 'acuracy', 'train.eval_every': '2'})
    assert not read_records(tmp_path / 'run' / 'metrics.jsonl')[1:]  # only the evaluation of step 0
