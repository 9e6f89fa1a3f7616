"""Checks imports against the dependency rules between tasks, methods, models and the training loop.

    python launch/check_imports.py [FOLDER]

Parses all files of research/, launch/ and configs/ without running them, prints each forbidden import, and exits with 1
if there is any. Includes imports inside functions. Standard library only.
"""

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

FOLDERS = ('research', 'launch', 'configs')
OURS = (*FOLDERS, 'tests', 'benchmarks')

# The project's modules that each folder (or module) may import; 'research' is research/__init__.py only.
# Tasks may not import tasks, nor methods methods, so neither lists its own folder.
MAY_IMPORT = {
    'research': (
        'research.api', 'research.core.config', 'research.core.evaluate', 'research.core.outcome', 'research.core.task',
        'research.inference.model', 'research.errors',
    ),
    'research.api': ('research',),  # resolves names for scripts and notebooks, as launch does
    'research.capacity': (
        'research.capacity', 'research.core', 'research.ops', 'research.data', 'research.errors', 'research.memory',
        'research.units',
    ),
    'research.checkpoint': (
        'research.checkpoint', 'research.core.task', 'research.core.pytree', 'research.ops', 'research.errors',
        'research.disk',
    ),
    'research.cluster': ('research.cluster', 'research.data.fields', 'research.errors'),
    'research.core': (
        'research.core', 'research.checkpoint', 'research.cluster', 'research.data', 'research.ops', 'research.errors',
        'research.memory', 'research.units',
    ),
    'research.data': ('research.data', 'research.ops', 'research.errors', 'research.extras'),
    'research.data.check.task': ('research.data', 'research.core', 'research.ops', 'research.errors'),
    'research.disk': (),
    'research.errors': (),
    'research.extras': ('research.errors',),
    'research.locations': ('research.errors',),
    'research.explain': (
        'research.explain', 'research.core', 'research.ops', 'research.data', 'research.errors',
    ),
    'research.export': (
        'research.export', 'research.inference', 'research.interop', 'research.core', 'research.ops', 'research.data',
        'research.errors', 'research.extras', 'research.nn.transformer_settings',
    ),
    'research.families': (
        'research.families', 'research.core.task', 'research.models', 'research.nn', 'research.ops', 'research.data',
        'research.errors',
    ),
    'research.inference': (
        'research.inference', 'research.core', 'research.checkpoint', 'research.ops', 'research.data',
        'research.errors', 'research.extras',
    ),
    'research.interop': (
        'research.interop', 'research.core', 'research.nn', 'research.ops', 'research.data', 'research.errors',
    ),
    'research.memory': ('research.units',),
    'research.methods': ('research.core.task', 'research.ops', 'research.errors'),
    'research.models': (
        'research.models', 'research.core.task', 'research.interop', 'research.nn', 'research.ops', 'research.data',
        'research.errors',
    ),
    'research.nn': ('research.nn', 'research.ops', 'research.errors'),
    'research.ops': ('research.ops', 'research.data', 'research.errors', 'research.extras'),
    'research.overrides': ('research.errors',),
    'research.program': ('research', 'launch'),  # the console command
    'research.resolve': ('research',),  # for research.api
    'research.report': (
        'research.report', 'research.core', 'research.ops', 'research.data.notes', 'research.data.readable',
        'research.errors', 'research.memory', 'research.units',
    ),
    'research.serve': (
        'research.serve', 'research.inference', 'research.core', 'research.ops', 'research.data', 'research.errors',
        'research.extras',
    ),
    'research.tasks': (
        'research.core.task', 'research.families', 'research.models', 'research.nn', 'research.ops', 'research.data',
        'research.interop', 'research.errors',
    ),
    'research.units': (),
    'launch': ('launch', 'research'),
    'configs': ('configs', 'research.core.config', 'research.errors'),
}

# Packages that only the listed modules may import.
RESERVED = {
    'flax': ('research.nn',),
    'orbax': ('research.checkpoint.store',),
    'tensorflow': ('launch.prepare_data',),
    'tensorflow_text': ('launch.prepare_data',),
    'tensorflow_hub': ('launch.prepare_data',),
}


class Import(NamedTuple):
    """One imported name: 'research.core.task.Task' for `from research.core.task import Task`."""

    line: int
    name: str


def within(name: str, folders: Sequence[str]) -> bool:
    """Whether the dotted `name` is one of `folders` or below one."""
    return any(name == folder or name.startswith(folder + '.') for folder in folders)


def module_name(path: Path) -> str:
    """Dotted module name of a path relative to the root; an __init__.py has the name of its folder."""
    parts = path.with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imports(source: str, module: str, is_package: bool = False) -> Iterator[Import]:
    """Yields the imports of a module, with relative names resolved, including `import_module('literal')`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                up = node.level - (1 if is_package else 0)
                parts = module.split('.')
                parents = parts[: len(parts) - up]
                base = '.'.join([*parents, *([base] if base else [])])
            for alias in node.names:
                yield Import(node.lineno, f'{base}.{alias.name}')
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, 'id', '')
            if called in ('import_module', '__import__') and isinstance(node.args[0].value, str):
                yield Import(node.lineno, node.args[0].value)


def rule_for(module: str) -> str:
    """Longest key of MAY_IMPORT that covers `module`; '' if none does."""
    keys = [key for key in MAY_IMPORT if module == key or (key != 'research' and within(module, (key,)))]
    return max(keys, key=len, default='')


def objection(module: str, name: str) -> str:
    """Reason why `module` may not import `name`; '' if it may."""
    top = name.split('.')[0]
    if top in RESERVED and not within(module, RESERVED[top]):
        return f'only {", ".join(RESERVED[top])} may import {top}'
    if top not in OURS:
        return ''
    folder = rule_for(module)
    if not folder:
        return f'MAY_IMPORT has no rule for {module}: add one'
    if within(name, MAY_IMPORT[folder]):
        return ''
    return f'of this project, {folder} may only import {", ".join(MAY_IMPORT[folder]) or "nothing"}'


def violations(root: Path) -> list[str]:
    """Lists 'path:line: imports name: reason' for each forbidden import below `root`."""
    problems = []
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob('*.py')):
            relative = path.relative_to(root)
            module = module_name(relative)
            try:
                names = list(imports(path.read_text(encoding='utf-8'), module, path.name == '__init__.py'))
            except SyntaxError as error:
                problems.append(f'{relative.as_posix()}:{error.lineno}: does not parse: {error.msg}')
                continue
            for line, name in sorted(names):
                reason = objection(module, name)
                if reason:
                    problems.append(f'{relative.as_posix()}:{line}: imports {name}: {reason}')
    return problems


def main(arguments: Sequence[str]) -> int:
    """Prints the violations below a folder, by default this repository; returns 1 if there are any."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    problems = violations(root)
    print('\n'.join(problems) or f'imports of {", ".join(FOLDERS)}: no violations')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
