"""What a run says while it trains: records on disk, means over steps, progress, times of stages."""

import io
import json
import math
import pathlib

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from research.core import logs


def lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / logs.METRICS_FILE).read_text().splitlines()]


def test_records_are_written_at_once_and_read_back(tmp_path):
    with logs.MetricsWriter(tmp_path, tensorboard=False) as records:
        records.write(10, 'train', {'loss': 0.5, 'broken': math.inf})
        records.write(10, 'validation', {'loss': 0.25})
        assert [line['kind'] for line in lines(tmp_path)] == ['train', 'validation']  # before it is closed
    first, second = logs.read_records(tmp_path / logs.METRICS_FILE)
    assert first['step'] == 10 and first['values']['loss'] == 0.5 and math.isnan(first['values']['broken'])
    assert second['values'] == {'loss': 0.25} and second['time'] > 1e9
    assert 'Infinity' not in (tmp_path / logs.METRICS_FILE).read_text()  # it is no JSON


def test_resuming_drops_later_records_and_a_torn_line(tmp_path):
    with logs.MetricsWriter(tmp_path, tensorboard=False) as records:
        for step in (10, 20, 30):
            records.write(step, 'train', {'loss': step})
    with (tmp_path / logs.METRICS_FILE).open('a') as file:
        file.write('{"step": 15, "kind": "tr')
    with logs.MetricsWriter(tmp_path, step=20, tensorboard=False) as records:
        assert [line['step'] for line in lines(tmp_path)] == [10, 20]
        records.write(25, 'train', {'loss': 25})
    assert [line['step'] for line in lines(tmp_path)] == [10, 20, 25]
    assert [file.name for file in tmp_path.iterdir()] == [logs.METRICS_FILE]


@given(cut=st.integers(0, 400))
@settings(max_examples=30, deadline=None)
def test_records_survive_a_kill_at_any_byte(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp('run')
    with logs.MetricsWriter(folder, tensorboard=False) as records:
        for step in range(4):
            records.write(step, 'train', {'loss': 0.123456789})
    path = folder / logs.METRICS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    kept = [record['step'] for record in logs.read_records(path)]
    assert kept == list(range(len(kept))) and len(kept) >= whole[:cut].count(b'\n')


def test_no_file_is_no_records(tmp_path):
    assert logs.read_records(tmp_path / logs.METRICS_FILE) == []


def test_only_the_first_process_writes(tmp_path):
    with logs.MetricsWriter(tmp_path / 'run', write=False) as records:
        records.write(1, 'train', {'loss': 1.0})
        records.flush()
    assert not (tmp_path / 'run').exists()


def test_tensorboard_event_files_hold_the_values(tmp_path):
    with logs.MetricsWriter(tmp_path) as records:
        records.write(7, 'validation', {'accuracy': 0.5, 'broken': math.nan})
    (file,) = (tmp_path / 'tensorboard').iterdir()
    assert file.name.startswith('events.out.tfevents')
    assert b'validation/accuracy' in file.read_bytes() and b'broken' not in file.read_bytes()


class Store(dict):
    """A store that holds whole objects and cannot append or rename, at 'mem://'."""


class StorePath:
    """The part of a path that `Records` needs."""

    def __init__(self, store, path):
        self.store, self.path = store, path

    def __fspath__(self):
        return self.path

    def __truediv__(self, name):
        return StorePath(self.store, f'{self.path}/{name}')

    def mkdir(self, parents, exist_ok):
        pass

    def exists(self):
        return self.path in self.store

    def read_bytes(self):
        return self.store[self.path]

    def write_bytes(self, data):
        self.store[self.path] = data


def test_a_store_that_cannot_append_gets_the_file_whole(monkeypatch):
    monkeypatch.setattr(logs.epath, 'Path', lambda path: path)
    store = Store()
    folder = StorePath(store, 'mem://bucket/run')
    with logs.MetricsWriter(folder) as records:
        records.write(1, 'train', {'loss': 1.0})
        assert store[f'mem://bucket/run/{logs.METRICS_FILE}'] == b''  # not yet: writing it again costs
        records.flush()
        assert store[f'mem://bucket/run/{logs.METRICS_FILE}'].count(b'\n') == 1
        records.write(2, 'train', {'loss': 0.5})
    with logs.MetricsWriter(folder, step=1) as records:
        records.write(3, 'train', {'loss': 0.25})
    assert [record['step'] for record in logs.read_records(folder / logs.METRICS_FILE)] == [1, 3]
    assert list(store) == [f'mem://bucket/run/{logs.METRICS_FILE}']  # no events, no part


def test_text_is_replaced_whole(tmp_path):
    path = epath.Path(tmp_path / 'file')
    logs.write_text(path, 'one')
    logs.write_text(path, 'two \ud800')  # half a surrogate pair, as a broken model may write
    assert path.read_text() == 'two ?'
    assert [file.name for file in tmp_path.iterdir()] == ['file']


def test_meter_means_weigh_and_skip_what_was_not_updated():
    meter = logs.Meter()
    meter.add({'loss': (6.0, 2.0), 'generator/loss': (0.0, 0.0)})
    assert meter.means() == {'loss': 3.0}
    meter.add({'loss': (2.0, 6.0), 'generator/loss': (5.0, 10.0)})
    meter.add({'loss': (math.nan, 0.0), 'generator/loss': (0.0, 0.0)})
    assert meter.means() == {'loss': 1.0, 'generator/loss': 0.5}
    meter.clear()
    assert meter.means() == {}


def plain_console() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=60)


def test_progress_off_a_terminal_is_one_line_an_update():
    now, console = [100.0], plain_console()
    with logs.Progress(1000, 0, 32, console=console, clock=lambda: now[0]) as progress:
        for step in (100, 200):
            now[0] += 10
            progress.update(step, {'loss': 0.123456, 'accuracy': 0.5})
        progress.say('[evaluated]')
        assert progress.rate() == 10 and progress.left() == 80
    first, second, said = console.file.getvalue().splitlines()
    assert (
        first == 'step 100/1,000  10%  loss 0.1235  accuracy 0.5  1 min 30 s left  10 steps/s  320 examples/s'
    )
    assert second.startswith('step 200/1,000  20%') and said == '[evaluated]'


def test_progress_of_a_run_that_goes_on_counts_its_own_steps():
    now = [0.0]
    progress = logs.Progress(1000, 900, console=plain_console(), clock=lambda: now[0])
    assert math.isnan(progress.left())
    now[0] = 5.0
    progress.update(950, {})
    assert progress.rate() == 10 and progress.left() == 5


@pytest.mark.parametrize('width', [30, 60, 80, 120])
def test_progress_on_a_terminal_is_a_bar(width):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, legacy_windows=False)
    with logs.Progress(2000, 0, 32, console=console) as progress:
        progress.update(1000, {'loss': 0.5})
        progress.say('half')
    shown = console.file.getvalue()
    assert '1,000/2,000' in shown and 'half' in shown
    if width >= 80:
        assert 'loss 0.5' in shown and 'left' in shown


def test_progress_of_other_processes_is_silent(capsys):
    with logs.Progress(10, write=False) as progress:
        progress.update(5, {'loss': 1.0})
        progress.say('nothing')
    assert capsys.readouterr().out == ''


def test_stages_add_up_even_when_they_fail():
    times: dict[str, float] = {}
    with logs.stage('compile', times):
        pass
    before = times['compile']
    with pytest.raises(KeyError), logs.stage('compile', times, debug=True):
        raise KeyError
    assert times['compile'] > before > 0


def test_stages_are_logged_when_asked(caplog):
    from absl import logging

    logging.use_absl_handler()
    with caplog.at_level('DEBUG', logger='absl'):
        with logs.stage('compile', {}, debug=True):
            pass
    assert 'stage compile' in caplog.text


def test_local_paths():
    assert logs.is_local('/tmp/run') and logs.is_local(pathlib.Path('runs')) and not logs.is_local('gs://a/b')
