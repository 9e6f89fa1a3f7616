"""Task modules without flax: requests are encoded and answers decoded on a machine that only serves."""

import importlib
import json
import pathlib
import pickle
import pkgutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from etils import epath

import research.tasks
from research import api
from research.core.task import Context
from research.data.batches import requests

ROOT = pathlib.Path(__file__).parent.parent
MODULES = sorted(f'research.tasks.{module.name}' for module in pkgutil.iter_modules(research.tasks.__path__))
CONFIGS = {  # one config of each task that has a host part, and a request
    'image_classification': ('digits', {'image': [[[0.5]] * 8] * 8}),
    'text_classification': ('sst2', {'text': 'a film'}),
    'table_classification': ('adult', {}),
    'audio_classification': ('spoken_digits', {'audio': [0.1, -0.1] * 4000, 'rate': 8000}),
    'sequence_classification': ('splice_sites', {'sequence': 'ACGT'}),
}
WITHOUT_FLAX = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('flax', 'optax', 'orbax'):
            raise ImportError(f'{name} must not be imported')

sys.meta_path.insert(0, Refuse())
for module in sys.argv[2:]:
    importlib.import_module(module)
"""
ANSWER = """
import json, pickle
import numpy as np
from etils import epath

config, folder, request, outputs = pickle.load(open(sys.argv[1], 'rb'))
module = importlib.import_module(sys.argv[2])
host = module.host(config, epath.Path(folder))
request = {name: np.asarray(value, np.float32) if isinstance(value, list) else value for name, value in request.items()}
row = host.encode(request)
assert row and all(isinstance(value, (np.ndarray, np.generic)) for value in row.values()), row
assert set(request) <= set(host.inputs)
print(json.dumps(host.decode(outputs)))
"""


def run_without_flax(code, *arguments):
    """Runs a program in which importing flax, optax or orbax fails; gives what it prints."""
    result = subprocess.run(
        [sys.executable, '-c', WITHOUT_FLAX + code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True,
        env={'JAX_PLATFORMS': 'cpu', 'PATH': '', 'HOME': '/tmp'}, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def as_arrays(request):
    """A request with lists of numbers as arrays."""
    arrays = {name: np.asarray(value, np.float32) for name, value in request.items() if isinstance(value, list)}
    return {**request, **arrays}


def with_host():
    """The names of the tasks that have a host part."""
    return [name.split('.')[-1] for name in MODULES if hasattr(importlib.import_module(name), 'host')]


def test_task_modules_with_a_host_part_import_no_flax():
    run_without_flax('', '', *(f'research.tasks.{name}' for name in with_host()))


def test_importing_flax_is_refused():
    with pytest.raises(AssertionError, match='must not be imported'):
        run_without_flax('', '', 'research.nn.mlp')


@pytest.mark.parametrize('name', with_host())
def test_requests_are_encoded_and_answers_decoded_without_flax(tmp_path, name):
    """The host part of a prepared ':tiny' folder in a process of its own."""
    assert name in CONFIGS, f'{name}: name a config and a request of it here'
    file, request = CONFIGS[name]
    config, folder = api.read(f'configs/{file}.py:tiny'), epath.Path(tmp_path / 'prepared')
    api.prepare(config, folder)
    task = api.build(config, folder)
    batch = requests(task.encode, [as_arrays(request)], 1)
    key = jax.random.key(0)
    answer = jax.jit(lambda batch: task.predict(task.init(key), batch, Context(key, 0, False)))
    outputs = {name: np.asarray(value)[0] for name, value in answer(batch).items()}
    stored = tmp_path / 'stored.pickle'
    stored.write_bytes(pickle.dumps((config, str(folder), request, outputs)))
    printed = run_without_flax(ANSWER, stored, f'research.tasks.{name}')
    assert json.loads(printed) == json.loads(json.dumps(task.decode(outputs)))
