import jax
import pytest

from research.cluster.heartbeat import DONE, FAILED, HeartbeatTable, Watch, failure
from research.errors import UserError


def test_a_process_that_stands_still_is_named_after_the_timeout():
    beats = HeartbeatTable(3, 0, 10, now=0)
    assert beats.update({0: '1', 1: '1', 2: '1'}, now=5) == ''
    assert beats.update({0: '2', 1: '1', 2: '2'}, now=15) == ''  # last heard of at 5
    assert 'no heartbeat from process 1 for 10 s' in beats.update({0: '3', 1: '1', 2: '3'}, now=15.1)


def test_a_process_that_never_came_is_named():
    assert 'process 1' in HeartbeatTable(2, 0, 10, now=0).update({0: '1'}, now=11)


def test_a_finished_process_may_be_silent_and_a_failed_one_says_why():
    beats = HeartbeatTable(2, 0, 10, now=0)
    assert beats.update({1: DONE}, now=5) == beats.update({1: DONE}, now=500) == ''
    assert 'process 1 ended with an error: the disk is full' in beats.update({1: f'{FAILED}the disk is full'}, now=501)


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


@pytest.mark.parametrize(('broken', 'named'), [(False, 'no heartbeat from process 0'), (True, 'process 0 is gone')])
def test_the_thread_ends_its_process_when_another_is_dead(broken, named):
    problems = []
    watch = Watch(Store(broken), 2, 1, 0.2, problems.append)
    watch.thread.start()
    watch.thread.join(10)
    assert named in problems[0]


def test_a_closed_watch_leaves_its_last_word():
    store = Store()
    watch = Watch(store, 2, 1, 60, pytest.fail)
    watch.thread.start()
    watch.close(DONE)
    watch.thread.join(10)
    assert not watch.thread.is_alive() and store.values == {'tessera/alive/1': DONE}


def test_what_others_are_told():
    assert failure(UserError('no space')) == 'no space'
    assert failure(ValueError('a\nb')) == 'ValueError: a'
