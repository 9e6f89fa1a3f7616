import threading

import jax
import pytest

from research.cluster.heartbeat import FAILED, LOST, HeartbeatTable, Watch, failure
from research.errors import UserError


def test_a_process_that_stands_still_is_named_after_the_timeout():
    beats = HeartbeatTable(3, 0, 10, now=0)
    assert beats.update({0: '1', 1: '1', 2: '1'}, now=5) == ''
    assert beats.update({0: '2', 1: '1', 2: '2'}, now=15) == ''  # last heard of at 5
    assert 'no heartbeat from process 1 for 10 s' in beats.update({0: '3', 1: '1', 2: '3'}, now=15.1)


def test_a_process_that_never_came_is_named():
    assert 'process 1' in HeartbeatTable(2, 0, 10, now=0).update({0: '1'}, now=11)


def test_a_failed_process_says_why_and_a_dead_one_is_named_by_all():
    beats = HeartbeatTable(3, 0, 10, now=0)
    assert 'process 1 ended with an error: the disk is full' in beats.update({1: f'{FAILED}the disk is full'}, now=1)
    assert beats.update({1: '1', 2: f'{LOST}no heartbeat from process 1'}, now=2) == 'no heartbeat from process 1'


class Store:
    """Stands for jax's coordination service."""

    def __init__(self, broken=False):
        self.values, self.broken = {}, broken

    def key_value_set(self, key, value, allow_overwrite):
        if self.broken:
            raise jax.errors.JaxRuntimeError('UNAVAILABLE')
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return list(self.values.items())


@pytest.mark.parametrize('process', [0, 1])
def test_the_thread_ends_its_process_when_another_is_dead(process):
    problems, store = [], Store()
    watch = Watch(store, 2, process, 0.2, problems.append)
    watch.start()
    watch.thread.join(10)
    assert f'no heartbeat from process {1 - process}' in problems[0]
    assert store.values[f'tessera/alive/{process}'] == LOST + problems[0]


@pytest.mark.parametrize('connected', [False, True])
def test_a_lost_service_ends_the_process(connected):
    problems, lost, ended = [], threading.Event(), threading.Event()
    watch = Watch(Store(broken=True), 2, 1, 60 if not connected else 0.2, problems.append, lost)
    watch.end = lambda problem: (problems.append(problem), ended.set())
    watch.start()
    if not connected:  # else it does not answer
        lost.set()
    assert ended.wait(10) and 'process 0 is gone' in problems[0]
    watch.close()


def test_a_closed_watch_ends_nothing():
    lost = threading.Event()
    watch = Watch(Store(), 2, 1, 60, pytest.fail, lost)
    watch.start()
    watch.close()
    lost.set()
    watch.thread.join(10)
    assert not watch.thread.is_alive()


def test_what_others_are_told():
    assert failure(UserError('no space')) == 'no space'
    assert failure(ValueError('a\nb')) == 'ValueError: a'
