"""Batches as pure functions of (seed, step): rows in a global order, of which each host encodes only its slice.

The order is independent of the number of hosts, devices, threads and processes, so a run can be killed, resumed and
resharded without saving any data state.
"""

import concurrent.futures
import concurrent.futures.process
import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int

from research.errors import UserError

MAX_OVERFLOW_PROBABILITY = 1e-18  # that a Poisson batch exceeds its capacity
WORKER_ENDED = (
    "config.train.workers: a worker process ended. A script must start training under `if __name__ == '__main__':`, "
    'because each worker imports it; otherwise the worker was killed, possibly for lack of memory: use fewer workers'
)


class Row(NamedTuple):
    """One row of a global batch: which example, in which epoch (None: no augmentation), real or padding.

    A Poisson batch has no epoch and uses its step instead, so a row that is sampled again gets a new augmentation.
    `bucket` is for tasks whose examples differ in shape (`research.data.buckets`).
    """

    index: int
    epoch: int | None
    real: bool
    bucket: int = -1


@functools.lru_cache(maxsize=4)
def order(count: int, seed: int, epoch: int) -> Int[np.ndarray, 'count']:
    """The order of an epoch: an argsort of random 64-bit words, a stream that NumPy promises never to change."""
    words = np.random.Philox(key=[seed & 0xFFFFFFFF, epoch]).random_raw(count)
    return np.argsort(words, kind='stable')


def training_rows(count: int, batch_size: int, seed: int, step: int) -> list[Row]:
    """Rows of the batch of `step`. Batches are always full and continue across epoch boundaries."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [Row(int(order(count, seed, p // count)[p % count]), p // count, True) for p in positions]


def poisson_rows(count: int, batch_size: int, capacity: int, seed: int, step: int) -> list[Row]:
    """Samples every row independently with probability batch_size / count, then pads to `capacity`.

    A pure function of its arguments; its random stream is separate from that of `order`. Rows beyond `capacity` are
    dropped; `poisson_capacity` bounds how rarely that happens.
    """
    words = np.random.Philox(key=[(1 << 32) | (seed & 0xFFFFFFFF), step]).random_raw(count)
    # Compare 64-bit integers exactly; all ones represent probability 1.
    limit = np.uint64((batch_size << 64) // count - 1)
    chosen = np.flatnonzero(words <= limit)[:capacity].tolist()
    return [Row(index, step, True) for index in chosen] + [Row(0, None, False)] * (capacity - len(chosen))


def poisson_capacity(count: int, batch_size: int, multiple: int = 1) -> int:
    """Rows to reserve for a Poisson batch, a multiple of `multiple`.

    The probability of sampling more rows than that in a step, the tail of a binomial, is below
    `MAX_OVERFLOW_PROBABILITY`.

    Raises:
      UserError: if the batch is larger than the data set.
    """
    from scipy.special import betainc

    if batch_size > count:
        raise UserError(
            f"config.train.sampling='poisson': batch_size={batch_size} is more than the {count} rows of the "
            'training split'
        )
    # P(more than k of n) = I_p(k + 1, n - k), which falls with k.
    low, high = batch_size, count
    while low < high:
        middle = (low + high) // 2
        if betainc(middle + 1, count - middle, batch_size / count) < MAX_OVERFLOW_PROBABILITY:
            high = middle
        else:
            low = middle + 1
    return -(-low // multiple) * multiple


def sampler(count: int, batch_size: int, seed: int, capacity: int = 0) -> Callable[[int], list[Row]]:
    """Makes the function from a step to its rows: shuffled epochs, or Poisson samples if `capacity` is positive."""
    if capacity:
        return functools.partial(poisson_rows, count, batch_size, capacity, seed)
    return functools.partial(training_rows, count, batch_size, seed)


def evaluation_rows(count: int, batch_size: int, step: int) -> list[Row]:
    """Rows of one batch of an ordered pass over a split; the last batch is filled with padding rows."""
    start = step * batch_size  # pad with a row of this batch: row 0 may have another shape
    return [Row(i, None, True) if i < count else Row(start, None, False) for i in range(start, start + batch_size)]


def local_positions(sharding: jax.sharding.Sharding, batch_size: int) -> list[int]:
    """Positions of the global batch held by this host's devices."""
    slices = sharding.addressable_devices_indices_map((batch_size,)).values()
    return sorted({position for (part,) in slices for position in range(*part.indices(batch_size))})  # pyright: ignore[reportGeneralTypeIssues]


class LazyGenerator:
    """A `numpy.random.Generator` created on first use: creation takes 50 us, and most rows draw nothing."""

    def __init__(self, *seeds: int):
        self._seeds = seeds

    @functools.cached_property
    def _generator(self) -> np.random.Generator:
        return np.random.default_rng(self._seeds)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._generator, name)


def encode_rows(
    source: Sequence, encode: Callable, rows: Sequence[Row], seed: int, pad: Callable | None = None
) -> dict[str, np.ndarray]:
    """Encodes rows and stacks them along a new batch axis, with 'index' (int32) and 'mask' (float32).

    `pad(example, bucket)` pads each example to the shapes of its row's bucket.
    """
    encoded = [
        encode(source[row.index], None if row.epoch is None else LazyGenerator(seed, row.epoch, row.index))
        for row in rows
    ]
    if pad:
        encoded = [pad(example, row.bucket) for example, row in zip(encoded, rows, strict=True)]
    return {**stack(encoded), 'index': np.array([row.index for row in rows], np.int32), 'mask': mask_of(rows)}


@functools.lru_cache(maxsize=1)
def rebuilt(pickled: bytes) -> Any:
    """The task that a pickled function builds, once per worker process."""
    return pickle.loads(pickled)()


def encode_rows_of(pickled: bytes, rows: Sequence[Row], seed: int) -> dict[str, np.ndarray]:
    """Runs `encode_rows` on the training split of a task that this worker process builds itself."""
    task = rebuilt(pickled)
    return encode_rows(task.source('train'), task.encode, rows, seed, task.buckets and task.buckets.pad)


def start_worker() -> None:
    """Keeps a worker off the accelerator, makes it ignore Ctrl-C, and ends it with its parent.

    The training process owns the accelerator and handles Ctrl-C.
    """
    jax.config.update('jax_platforms', 'cpu')
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()


def end_with_parent(parent: int, interval: float = 1.0) -> None:
    """Exits when the parent process is gone; a worker that waits for work would never notice."""
    while os.getppid() == parent:
        time.sleep(interval)
    os._exit(1)


def check_main_guard() -> None:
    """Exits a worker process that is about to train because it imported an unguarded script.

    The parent reports the error (see `Loader`), so each worker does not repeat it.
    """
    if getattr(multiprocessing.current_process(), '_inheriting', False):
        os._exit(1)


def mask_of(rows: Sequence[Row]) -> np.ndarray:
    """Float32 mask: 1.0 for real rows, 0.0 for padding."""
    return np.array([row.real for row in rows], np.float32)


def stack(encoded: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Stacks equal-shaped examples into one batch of arrays.

    Raises:
      UserError: if two rows differ in fields or shapes.
    """
    batch = {}
    for name in encoded[0] if encoded else ():
        values = [np.asarray(example[name]) for example in encoded if name in example]
        if len(values) < len(encoded) or len({value.shape for value in values}) > 1:
            shapes = sorted({str(value.shape) for value in values})
            have = f'{len(values)} of {len(encoded)} have it'
            raise UserError(f'rows of one batch differ in field {name!r}: {have}, {shapes}')
        batch[name] = narrow(np.stack(values))
    return batch


def narrow(values: np.ndarray) -> np.ndarray:
    """Casts 64-bit numbers to 32 bits, the widest type on devices here."""
    narrower = {'float64': np.float32, 'int64': np.int32, 'uint64': np.uint32}
    return values.astype(narrower.get(values.dtype.name, values.dtype), copy=False)


def requests(encode: Callable, raws: Sequence[Any], batch_size: int) -> dict[str, np.ndarray]:
    """Encodes up to `batch_size` requests as one batch, padded with masked copies of the first."""
    encoded = [encode(raw) for raw in raws]
    padding = batch_size - len(raws)
    index = np.arange(batch_size, dtype=np.int32)
    mask = (index < len(raws)).astype(np.float32)
    return {**stack(encoded + encoded[:1] * padding), 'index': index, 'mask': mask}


def place(
    local: dict[str, np.ndarray], positions: Sequence[int], batch_size: int, sharding: jax.sharding.Sharding
) -> dict[str, jax.Array]:
    """Assembles global device arrays from the rows that this host holds."""
    first = {position: row for row, position in enumerate(positions)}

    def device_array(values: np.ndarray) -> jax.Array:
        def shard(index):
            start, stop, _ = index[0].indices(batch_size)
            return values[first[start] : first[start] + stop - start]

        return jax.make_array_from_callback((batch_size, *values.shape[1:]), sharding, shard)

    return {name: device_array(values) for name, values in local.items()}


class Loader:
    """Iterates over the device batches of given steps, encoded ahead of time by threads or processes.

    `waited` is the time in seconds that the consumer has waited for data.
    """

    def __init__(
        self,
        rows_of: Callable[[int], list[Row]],
        encode_batch: Callable[[Sequence[Row]], dict[str, np.ndarray]],
        steps: range,
        sharding: jax.sharding.Sharding,
        batch_size: int,
        prefetch: int = 2,
        workers: int = 0,
    ):
        self._rows_of, self._encode_batch = rows_of, encode_batch
        self._steps, self._sharding, self._batch_size = steps, sharding, batch_size
        self._positions = local_positions(sharding, batch_size)
        self._ahead = max(prefetch, workers + 1)
        if workers:  # spawn: a forked child would inherit the threads of XLA and could deadlock
            context = multiprocessing.get_context('spawn')
            self._pool = concurrent.futures.ProcessPoolExecutor(workers, mp_context=context, initializer=start_worker)
        else:
            self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix='data')
        self.waited = 0.0

    def _submit(self, step: int) -> concurrent.futures.Future:
        rows = self._rows_of(step)
        return self._pool.submit(self._encode_batch, [rows[position] for position in self._positions])

    def __iter__(self) -> Iterator[dict[str, jax.Array]]:
        pending = []
        steps = iter(self._steps)
        try:
            for step in steps:
                pending.append(self._submit(step))
                if len(pending) >= self._ahead:
                    yield self._take(pending)
            while pending:
                yield self._take(pending)
        finally:
            self.close()

    def _take(self, pending: list[concurrent.futures.Future]) -> dict[str, jax.Array]:
        started = time.perf_counter()
        try:
            local = pending.pop(0).result()
        except concurrent.futures.process.BrokenProcessPool:
            raise UserError(WORKER_ENDED) from None
        self.waited += time.perf_counter() - started
        return place(local, self._positions, self._batch_size, self._sharding)

    def close(self) -> None:
        """Ends the threads or processes; safe to call twice, and in an iterator that outlives the interpreter."""
        if not sys.is_finalizing():
            self._pool.shutdown(wait=False, cancel_futures=True)


def training_loader(
    source: Sequence, encode: Callable, steps: range, batch_size: int, seed: int, sharding, prefetch=2,
    workers=0, capacity=0, rebuild: Callable[[], Any] | None = None,
    rows_of: Callable[[int], list[Row]] | None = None, pad: Callable | None = None,
) -> Loader:  # fmt: skip
    """A loader of the training batches of `steps`; with a `capacity` they are Poisson samples.

    For a task with buckets, `rows_of` gives the rows of a step and `pad` pads them to their shapes.

    A task's functions usually cannot be pickled; `rebuild` can, and makes the task in the worker process.

    Raises:
      UserError: if `workers` is positive and the task cannot be built in another process.
    """
    rows_of = rows_of or sampler(len(source), batch_size, seed, capacity)
    encode_batch = functools.partial(encode_rows, source, encode, seed=seed, pad=pad)
    if workers:
        try:
            pickled = pickle.dumps(rebuild or encode_batch)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UserError(
                f'config.train.workers={workers}: this task cannot be built in another process ({error}); '
                'set workers=0 to read ahead in a thread'
            ) from None
        encode_batch = functools.partial(encode_rows_of, pickled, seed=seed) if rebuild else encode_batch
    return Loader(rows_of, encode_batch, steps, sharding, capacity or batch_size, prefetch, workers)


def evaluation_loader(
    source: Sequence, encode: Callable, batch_size: int, sharding, limit: int = 0,
    batches: Sequence[list[Row]] | None = None, pad: Callable | None = None,
) -> Loader:  # fmt: skip
    """A loader for one ordered pass over a split, or over its first `limit` rows.

    For a task with buckets, `batches` are its batches and `pad` pads rows to their shapes.
    """
    count = min(limit, len(source)) if limit else len(source)
    steps = range(-(-count // batch_size) if batches is None else len(batches))
    rows_of = batches.__getitem__ if batches else functools.partial(evaluation_rows, count, batch_size)
    encode_batch = functools.partial(encode_rows, source, encode, seed=0, pad=pad)
    return Loader(rows_of, encode_batch, steps, sharding, batch_size)
