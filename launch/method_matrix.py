"""Tries every method on every config at ':tiny' and prints the results as a table.

    python -m launch.method_matrix
"""

import tempfile
from typing import Any

import launch.flags

STEPS = 2


def main(overrides: dict[str, str]) -> None:
    """Prints one row per config: 'trains', or a reference to the reason for a refusal."""
    from research import api

    methods = sorted(api.method_defaults())
    print('| config | ' + ' | '.join(methods) + ' |')
    print('|---' * (len(methods) + 1) + '|')
    reasons = []
    for name in configs():
        cells = []
        for method in methods:
            refusal = cell(name, method)
            suffix = ''.join(f' with {key}={value}' for key, value in extra(name, method).items())
            cells.append(f'refuses ({len(reasons) + 1})' if refusal else f'trains{suffix}')
            if refusal:
                reasons.append(f'{len(reasons) + 1}. `{name}`, {method}: {refusal}')
        print(f'| `{name}` | ' + ' | '.join(cells) + ' |')
    print('\n'.join(['', *reasons]))


def configs() -> list[str]:
    """Names of all configs of the project."""
    from research.resolve import ROOT

    folder = ROOT / 'configs'
    return sorted(str(file.relative_to(folder))[:-3] for file in folder.rglob('*.py') if file.stem != '__init__')


def extra(name: str, method: str) -> dict[str, str]:
    """Overrides that a method needs for a config: LoRA needs the group if a config has several."""
    from research import api

    groups = list(api.read(f'{name}:tiny').optimizer)
    return {'lora.group': groups[-1]} if method == 'lora' and len(groups) > 1 else {}


def cell(name: str, method: str, train: bool = True) -> str:
    """Tries a method on a config; returns '' or the reason for a refusal.

    Args:
      name: a config, tried at ':tiny'.
      method: the method.
      train: compile and run two steps; otherwise only trace the step, which covers all refusals and shapes.

    Raises:
      AssertionError: if a logged value is not finite, or no parameter changes.
    """
    import jax
    from etils import epath

    from research import api
    from research.core.runspec import make_run_spec
    from research.errors import UserError

    try:
        config = api.read(f'{name}:tiny', {'methods': method, **extra(name, method)})
        with tempfile.TemporaryDirectory() as folder:
            api.prepare(config, epath.Path(folder))
            spec = make_run_spec(config, api.build(config, epath.Path(folder)), jax.devices()[:1])
            with jax.set_mesh(spec.mesh):
                if train:
                    train_steps(spec, config.seed)
                else:
                    jax.eval_shape(spec.step(), spec.state, spec.batch)
    except UserError as error:
        return str(error).split('\n')[0]
    return ''


def train_steps(spec: Any, seed: int) -> None:
    """Runs the first steps; raises AssertionError if a log is not finite or no parameter changes."""
    import jax
    import numpy as np

    from research.data.batches import encode_rows, place

    state = spec.init()
    source = spec.task.source('train')
    compiled = spec.compile()
    before = jax.device_get(state.variables)
    for step in range(max(STEPS, *spec.update_every.values())):
        rows = spec.rows(step)
        local = encode_rows(source, spec.task.encode, rows, seed, spec.pad)
        state, logs = compiled(state, place(local, range(len(rows)), len(rows), spec.batch_sharding))
    assert all(np.isfinite(value).all() for value in jax.tree.leaves(jax.device_get(logs)))
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), before, jax.device_get(state.variables))
    assert any(jax.tree.leaves(moved))


if __name__ == '__main__':
    launch.flags.run(main)
