"""Runs the test vectors of an exported folder; started by `research.export.check` as a program of its own.

Imports nothing of this project, and lets nothing import it or flax: what runs here runs elsewhere.
"""

import importlib.metadata
import json
import runpy
import statistics
import sys
import time

BLOCKED = ('flax', 'research', 'launch', 'configs', 'orbax', 'optax')
CALLS, SECONDS = 20, 3.0  # timed calls, and the time after which no further one starts


class Blocker:
    """An import hook that refuses the blocked packages."""

    def find_spec(self, name, path=None, target=None):
        """Raises ImportError for a blocked package."""
        if name.partition('.')[0] in BLOCKED:
            raise ImportError(f'{name} is not available where an exported folder runs')


def compare(got, wanted):
    """(largest error, its output), relative to values above 1; infinity for another shape or a missing output."""
    import numpy as np

    worst, error = '', 0.0
    for name, value in wanted.items():
        other = got.get(name)
        if other is None or other.shape != value.shape:
            return float('inf'), name
        same = np.array_equal(other, value, equal_nan=value.dtype.kind == 'f')
        with np.errstate(invalid='ignore'):
            difference = (
                0.0
                if same or not value.size
                else np.max(np.abs(np.subtract(other, value, dtype=np.float64)) / np.maximum(np.abs(value), 1))
            )
        difference = float(difference) if difference == difference else float('inf')
        if difference > error or not worst:
            worst, error = name, max(error, difference)
    return error, worst


def main(folder, packages):
    """Loads run.py, runs the vectors several times, and returns what to print."""
    started = time.perf_counter()
    module = runpy.run_path(f'{folder}/run.py')
    run, vectors = module['load'](), module['read']('vectors.safetensors')
    inputs, wanted = (
        {name[len(part):]: value for name, value in vectors.items() if name.startswith(part)}
        for part in ('inputs/', 'outputs/')
    )  # fmt: skip
    got = run(inputs)
    load_seconds = time.perf_counter() - started
    error, worst = compare(got, wanted)
    times, end = [], time.perf_counter() + SECONDS
    while len(times) < CALLS and (not times or time.perf_counter() < end):
        begin = time.perf_counter()
        run(inputs)
        times.append(time.perf_counter() - begin)
    return {
        'error': error, 'worst': worst, 'load_seconds': load_seconds, 'milliseconds': statistics.median(times) * 1e3,
        'modules': sorted({name.partition('.')[0] for name in sys.modules} & {*BLOCKED}), 'packages': packages,
    }  # fmt: skip


def version_of(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ''


if __name__ == '__main__':
    names = json.loads(sys.argv[2])
    sys.meta_path.insert(0, Blocker())
    sys.dont_write_bytecode = True
    try:
        result = main(sys.argv[1], names)
    except Exception as failure:  # any: run.py belongs to the folder
        text = (str(failure).strip().splitlines() or [''])[0]
        result = {'failed': f'{type(failure).__name__}: {text}'}
    print(json.dumps({**result, 'versions': {name: version_of(name) for name in names}}))
