"""What the first steps of every config gave when it was last changed on purpose: a net under refactorings.

tests/golden.json holds, for each config at ':tiny', the losses of its first steps, the metrics after them, and the
sum and L2 norm of every parameter leaf. To record them anew, with a reason in the commit:

    TESSERA_RECORD=1 python -m pytest -p no:xdist tests/test_contract.py -k recorded

Rounding differs between processors and versions of XLA, and Adam makes whole updates of gradients that are rounding
alone. So values are compared within 1e-5 where they were recorded, and within 2% elsewhere.
"""

import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
from typing import Any

import numpy as np
from contract import Built

from research.ops import paths

FILE = pathlib.Path(__file__).with_suffix('.json')
TOLERANCE = 1e-5  # relative: a leaf's sum to its L1 norm, for sums cancel
NO_GRADIENT = 1e-6  # attention does not depend on the bias of its keys: rounding alone moves it
ELSEWHERE = 0.02  # on another processor, or with another Python or XLA
MADE_WITH = 'made with'  # the key of what the values were recorded with


def summarize(built: Built, metrics: dict[str, float]) -> dict[str, Any]:
    """Returns the losses, metrics and parameter sums of a config after its first steps."""
    losses = [
        {name: float(total / weight) for name, (total, weight) in logs.items() if weight} for logs in built.logs
    ]
    leaves = {}
    for group, tree in built.after.variables.params.items():
        for path, leaf in paths.flatten_paths(tree).items():
            values = np.asarray(leaf, np.float64)
            leaves[f'{group}/{path}'] = [values.sum(), np.sqrt((values**2).sum()), np.abs(values).sum()]
    return rounded({'losses': losses, 'metrics': metrics, 'parameters': leaves})


def made_with() -> str:
    """Returns a digest of what rounding depends on: the processor, Python, whose library is data, and XLA."""
    processor = pathlib.Path('/proc/cpuinfo')
    lines = processor.read_text().splitlines() if processor.exists() else []
    flags = sorted({line for line in lines if line.startswith(('model name', 'flags', 'Features'))})
    parts = [platform.machine(), platform.python_version(), importlib.metadata.version('jaxlib'), *flags]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def rounded(value: Any) -> Any:
    """Returns nested values with eight significant digits, as they stand in the file."""
    if isinstance(value, dict):
        return {name: rounded(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return float(f'{float(value):.8g}')


def check(name: str, built: Built, metrics: dict[str, float]) -> None:
    """Compares a config with what was recorded, or records it where TESSERA_RECORD is set."""
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    new = summarize(built, metrics)
    if os.environ.get('TESSERA_RECORD'):
        known |= {name: new, MADE_WITH: made_with()}
        lines = (f'{json.dumps(key)}: {json.dumps(value)}' for key, value in sorted(known.items()))
        FILE.write_text('{\n' + ',\n'.join(lines) + '\n}\n')
        return
    assert name in known, f'{name} was never recorded: see tests/golden.py'
    old, same = known[name], known[MADE_WITH] == made_with()
    tolerance = TOLERANCE if same else ELSEWHERE
    for step, (before, now) in enumerate(zip(old['losses'], new['losses'], strict=True)):
        compare(f'losses of step {step + 1}', before, now, tolerance)
    assert old['metrics'].keys() == new['metrics'].keys()
    assert old['parameters'].keys() == new['parameters'].keys()
    if same:
        compare('metrics', old['metrics'], new['metrics'], tolerance)
    for path, (total, norm, size) in new['parameters'].items():
        expected = old['parameters'][path]
        smallest = NO_GRADIENT if same else ELSEWHERE
        np.testing.assert_allclose(norm, expected[1], rtol=tolerance, atol=smallest, err_msg=path)
        if same:
            np.testing.assert_allclose(total, expected[0], rtol=0, atol=TOLERANCE * size + NO_GRADIENT, err_msg=path)


def compare(what: str, old: dict[str, float], new: dict[str, float], tolerance: float) -> None:
    """Asserts that two dicts hold the same names and values."""
    assert old.keys() == new.keys(), what
    for name, value in old.items():
        np.testing.assert_allclose(new[name], value, rtol=tolerance, atol=1e-7, err_msg=f'{what}: {name}')
