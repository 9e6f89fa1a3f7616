"""Who may import whom: on this tree, on made-up violations, and as the interpreter really imports."""

import ast
import configparser
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from launch import check_imports

ROOT = Path(__file__).parent.parent


def test_this_tree_keeps_the_rule():
    assert check_imports.violations(ROOT) == []


def make_tree(root: Path, path: str, source: str) -> list[str]:
    file = root / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    return check_imports.violations(root)


FORBIDDEN = [
    ('research/core/train.py', 'from research.tasks import classify', 'research.tasks.classify'),
    ('research/core/train.py', 'import research.methods.lora', 'research.methods.lora'),
    ('research/core/train.py', 'from ..nn import mlp', 'research.nn.mlp'),
    ('research/core/train.py', 'from launch import flags', 'launch.flags'),
    ('research/core/__init__.py', 'from ..nn.mlp import MLP', 'research.nn.mlp.MLP'),
    ('research/core/train.py', 'def f():\n    import flax.linen as nn', 'flax.linen'),
    ('research/core/train.py', 'import orbax.checkpoint', 'orbax.checkpoint'),
    ('research/tasks/classify.py', 'from research.core import step', 'research.core.step'),
    ('research/tasks/classify.py', 'from research import core', 'research.core'),
    ('research/tasks/classify.py', 'from research.tasks.other import make', 'research.tasks.other.make'),
    ('research/tasks/classify.py', 'from flax import linen', 'flax.linen'),
    ('research/methods/lora.py', 'from research.nn.mlp import MLP', 'research.nn.mlp.MLP'),
    ('research/methods/lora.py', 'from research.core.task import *\nimport research.data', 'research.data'),
    ('research/nn/mlp.py', 'from research.core.task import Task', 'research.core.task.Task'),
    ('research/ops/losses.py', 'from research.nn import mlp', 'research.nn.mlp'),
    ('research/data/text/corpus.py', 'import tensorflow as tf', 'tensorflow'),
    ('research/data/text/corpus.py', 'import importlib\nimportlib.import_module("tensorflow.io")', 'tensorflow.io'),
    ('research/errors.py', 'from research.core import task', 'research.core.task'),
    ('research/serve/server.py', 'from research.tasks import classify', 'research.tasks.classify'),
    ('research/new/file.py', 'from research.core import task', 'research.core.task'),
    ('launch/train.py', 'import tensorflow', 'tensorflow'),
    ('configs/digits.py', 'from research.tasks import classify', 'research.tasks.classify'),
]


@pytest.mark.parametrize('path, source, name', FORBIDDEN)
def test_a_violation_is_found_once_and_named(tmp_path, path, source, name):
    (found,) = make_tree(tmp_path, path, source)
    assert re.match(rf'{re.escape(path)}:[12]: imports {re.escape(name)}: ', found)


ALLOWED = [
    ('research/core/train.py', 'from research.data import batches\nfrom research.core.step import step'),
    ('research/checkpoint/store.py', 'import orbax.checkpoint as ocp'),
    ('research/tasks/classify.py', 'from research.core.task import Task\nfrom research.nn.mlp import MLP'),
    ('research/tasks/classify.py', 'from research.core import task\nfrom research.errors import UserError'),
    ('research/nn/mlp.py', 'import flax.linen as nn\nfrom . import attention'),
    ('research/interop/export.py', 'from research.nn import mlp'),
    ('research/data/sets.py', 'import tensorflow_datasets as tfds\nimport numpy'),
    ('launch/prepare_data.py', 'import tensorflow as tf'),
    ('launch/train.py', 'from research.tasks import classify\nfrom launch import flags'),
    ('configs/digits.py', 'from research.core.config import base'),
]


@pytest.mark.parametrize('path, source', ALLOWED)
def test_what_is_allowed_passes(tmp_path, path, source):
    assert make_tree(tmp_path, path, source) == []


def test_the_program_prints_violations_and_fails(tmp_path, capsys):
    make_tree(tmp_path, 'research/nn/mlp.py', 'def broken(:')
    assert check_imports.main([str(tmp_path)]) == 1
    assert 'research/nn/mlp.py:1: does not parse' in capsys.readouterr().out
    assert check_imports.main([str(ROOT)]) == 0


def our_modules() -> list[str]:
    files = [file for folder in ('research', 'configs') for file in (ROOT / folder).rglob('*.py')]
    return sorted(check_imports.module_name(file.relative_to(ROOT)) for file in files)


def test_nothing_imports_tensorflow_even_where_it_is_installed(tmp_path):
    # The stand-in raises what no `except ImportError` swallows, if any library that we use reaches for it.
    (tmp_path / 'tensorflow').mkdir()
    (tmp_path / 'tensorflow' / '__init__.py').write_text('raise RuntimeError("tensorflow was imported")')
    program = 'import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)'
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, '-c', program, *our_modules()]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_package_that_we_import_is_declared():
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(ROOT / 'setup.cfg', encoding='utf-8')
    lines = [metadata['options']['install_requires'], *metadata['options.extras_require'].values()]
    lines.append((ROOT / 'launch' / 'foreign.txt').read_text(encoding='utf-8'))
    names = re.findall(r'(?m)^\s*([A-Za-z0-9_.-]+)', '\n'.join(lines))
    declared = {name.lower().replace('_', '-') for name in names}
    packages = importlib.metadata.packages_distributions()
    missing = {}
    for folder in check_imports.FOLDERS:
        for file in (ROOT / folder).rglob('*.py'):
            module = check_imports.module_name(file.relative_to(ROOT))
            source = file.read_text(encoding='utf-8')
            for found in check_imports.imports(source, module, file.stem == '__init__'):
                top = found.name.split('.')[0]
                if top in sys.stdlib_module_names or top in check_imports.OURS:
                    continue
                distributions = {name.lower().replace('_', '-') for name in packages.get(top, [top])}
                if not distributions & declared:
                    missing[top] = module
    assert missing == {}


def top_level_imports(path):
    """Returns the modules of ours that a file imports when it is loaded: imports in functions run later."""
    module = check_imports.module_name(path.relative_to(ROOT))
    tree = ast.parse(path.read_text(encoding='utf-8'))
    deferred = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        or (isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test))
        for inner in ast.walk(node)
    }
    names = {}
    for node in ast.walk(tree):
        if node in deferred or not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(node, ast.ImportFrom):
            names.update({f'{node.module}.{alias.name}': node.module for alias in node.names})
        else:
            names.update({alias.name: alias.name for alias in node.names})
    return module, names


def test_no_module_imports_itself_over_others():
    graph = {}
    for folder in check_imports.FOLDERS:
        for path in (ROOT / folder).rglob('*.py'):
            module, names = top_level_imports(path)
            graph[module] = names
    edges = {
        module: {name if name in graph else parent for name, parent in names.items()} & (graph.keys() - {module})
        for module, names in graph.items()
    }
    state = {}

    def visit(module, path):
        if state.get(module) == 'done':
            return
        assert module not in path, ' -> '.join([*path[path.index(module) :], module])
        for name in sorted(edges[module]):
            visit(name, [*path, module])
        state[module] = 'done'

    for module in sorted(edges):
        visit(module, [])
