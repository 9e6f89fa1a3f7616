"""Task modules import no flax, so that a machine that only serves needs none; `test_algebra.py` asks their hosts."""

import pathlib
import pkgutil
import subprocess
import sys

import research.tasks

ROOT = pathlib.Path(__file__).parent.parent
TASKS = sorted(f'research.tasks.{module.name}' for module in pkgutil.iter_modules(research.tasks.__path__))
WITHOUT_FLAX = """
import importlib, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in ('flax', 'optax', 'orbax'):
            raise ImportError(f'{name} must not be imported')

sys.meta_path.insert(0, Refuse())
for module in sys.argv[1:]:
    importlib.import_module(module)
"""


def imported_without_flax(*modules):
    """Imports modules in a process without flax, optax and orbax; gives what that process complains of."""
    program = [sys.executable, '-c', WITHOUT_FLAX, *modules]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False).stderr[-2000:]


def test_task_modules_import_no_flax():
    assert len(TASKS) >= 10 and not imported_without_flax(*TASKS)


def test_a_module_that_imports_flax_is_found():
    assert 'flax must not be imported' in imported_without_flax('research.models.image')
