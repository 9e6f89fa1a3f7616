"""Queues without a server: batches, fairness among clients, locks, and admission."""

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip('orjson', reason='needs the extra serve')

from research.serve.batcher import Admission, Batcher, FairLock, Job, chosen  # noqa: E402
from research.serve.errors import RequestError  # noqa: E402
from research.serve.generation import Gate, Waiting, next_waiting  # noqa: E402
from research.serve.programs import batch_sizes  # noqa: E402


def job(client: str = 'a', key: str = 'k', index: int = 0) -> Job:
    """A job."""
    return Job({'x': np.float32(index)}, key, index, 0, client)


def doubled(jobs: Sequence[Job]) -> list[dict[str, Any]]:
    """What a device program would return."""
    return [{'y': 2 * each.example['x']} for each in jobs]


def test_a_batch_takes_from_clients_in_turn_and_only_one_key() -> None:
    flood = [job('flood', index=n) for n in range(6)]
    late, other = job('late', index=7), job('third', 'another shape', 8)
    batch = chosen([*flood, late, other], 4, {})
    assert batch == [flood[0], late, flood[1], flood[2]]
    assert chosen([*flood, other], 1, {'flood': 3}) == [other]  # whoever was not served for longest
    assert chosen([], 4, {}) == []


def test_sizes_of_batches_are_powers_of_two_that_the_devices_divide() -> None:
    assert batch_sizes(32, 1, False) == (1, 2, 4, 8, 16, 32)
    assert batch_sizes(6, 1, False) == (1, 2, 4, 6)
    assert batch_sizes(32, 8, False) == (8, 16, 32)
    assert batch_sizes(5, 4, True) == (8,)


def test_what_waits_while_a_batch_runs_becomes_the_next_batch() -> None:
    sizes, release = [], threading.Event()

    def run(jobs: Sequence[Job]) -> list[dict[str, Any]]:
        sizes.append(len(jobs))
        release.wait(5)
        return doubled(jobs)

    async def ask() -> list[Any]:
        batcher = Batcher(run, 8, FairLock())
        batcher.start()
        tasks = [asyncio.create_task(batcher.outputs([job(index=0)]))]
        while not sizes:
            await asyncio.sleep(0.001)
        tasks += [asyncio.create_task(batcher.outputs([job(index=n)])) for n in range(1, 6)]
        await asyncio.sleep(0.02)
        release.set()
        results = await asyncio.gather(*tasks)
        batcher.close()
        return [outputs[0]['y'] for outputs in results]

    assert asyncio.run(ask()) == [0, 2, 4, 6, 8, 10]
    assert sizes == [1, 5]


def test_cancelled_jobs_never_run_and_an_error_ends_only_its_batch() -> None:
    seen, release = [], threading.Event()

    def run(jobs: Sequence[Job]) -> list[dict[str, Any]]:
        seen.extend(each.index for each in jobs)
        release.wait(5)
        if jobs[0].index == 3:
            raise RuntimeError('broken')
        return doubled(jobs)

    async def ask() -> None:
        batcher = Batcher(run, 1, FairLock())
        batcher.start()
        first, second, third, fourth = (asyncio.create_task(batcher.outputs([job(index=n)])) for n in (1, 2, 3, 4))
        while not seen:
            await asyncio.sleep(0.001)
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        assert (await first)[0]['y'] == 2
        with pytest.raises(RuntimeError, match='broken'):
            await third
        assert (await fourth)[0]['y'] == 8  # the thread lives on
        batcher.close()

    asyncio.run(ask())
    assert seen == [1, 3, 4]


def test_admission_refuses_a_full_queue_and_more_than_half_for_one_client() -> None:
    admission = Admission(4)
    leaves = [admission.enter('a'), admission.enter('a')]
    with pytest.raises(RequestError, match='2 of them are yours') as caught:
        admission.enter('a')
    assert caught.value.status == 429 and caught.value.retry_after >= 1
    leaves += [admission.enter('b'), admission.enter('c')]
    with pytest.raises(RequestError, match='4 requests are in the queue'):
        admission.enter('d')
    for leave in leaves:
        leave()
        leave()  # a second time changes nothing
    assert (admission.total, admission.clients) == (0, {})


def test_the_lock_is_given_in_the_order_of_arrival() -> None:
    lock, order = FairLock(), []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            while len(lock._waiting) <= number:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(5))


def test_nobody_gets_more_than_half_of_the_slots_while_others_wait() -> None:
    flood, late, large = Waiting('a', 1, None), Waiting('b', 1, None), Waiting('c', 4, None)  # pyright: ignore[reportArgumentType]
    assert next_waiting([flood], {'a': 6}, 8) is flood  # alone
    assert next_waiting([flood, late], {'a': 4}, 8) is late
    assert next_waiting([flood, late], {'a': 4, 'b': 4}, 8) is None
    assert next_waiting([flood], {'a': 8}, 8) is None  # full
    assert next_waiting([large, late], {'a': 6}, 8) is None  # the large one is next, and is not overtaken
    assert next_waiting([], {}, 8) is None


def test_a_gate_gives_slots_back_also_when_who_waits_is_cancelled() -> None:
    async def use() -> None:
        gate = Gate(4)
        gate.places = 2
        await gate.enter('a', 2)
        waits = asyncio.create_task(gate.enter('b', 1))
        gone = asyncio.create_task(gate.enter('c', 1))
        await asyncio.sleep(0)
        assert not waits.done()
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        gate.leave('a', 2)
        await waits
        assert (gate.running, gate.waiting) == ({'b': 1}, [])
        gate.leave('b', 1)
        assert gate.running == {}

    asyncio.run(use())
