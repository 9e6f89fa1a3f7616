"""The table of layers: the arrays of each module, their sizes, and which of them are trained."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.core.task import Variables
from research.ops.paths import flatten_paths
from research.units import bytes_text


def natural(name: str) -> list[tuple[int, int, str]]:
    """Makes a key that sorts 'layer_2' before 'layer_10'."""
    return [
        (0, int(part), '') if part.isdigit() else (1, 0, part) for part in re.split(r'(\d+)', name) if part
    ]


def call_order(init: Callable[..., Variables], key: Any) -> list[str]:
    """Lists the paths 'group/module/.../name' of the parameters in the order in which `init` makes them.

    JAX sorts the keys of every dict it returns, which loses the order of the layers from input to output; this
    reads the order while `init` is traced. Nothing is computed.
    """
    seen = []

    def walk(tree: Any, path: tuple[str, ...]) -> None:
        if isinstance(tree, Mapping):
            for name, child in tree.items():
                walk(child, (*path, str(name)))
        else:
            seen.append('/'.join(path))

    def traced(key):
        variables = init(key)
        walk(variables.params, ())
        return variables

    jax.eval_shape(traced, key)
    return seen


def _array(name: str, leaf: Any, trained: bool, collection: str) -> dict[str, Any]:
    """Describes an array; `leaf` has a shape, a dtype and, once it is placed, a sharding."""
    sharding, shape = getattr(leaf, 'sharding', None), tuple(leaf.shape)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended):
        width = 8  # a key: two words of 32 bits
    else:
        width = np.dtype(leaf.dtype).itemsize
    spec = getattr(sharding, 'spec', None) or ()
    split = [('+'.join(names) if isinstance(names, tuple) else names) or '' for names in spec]
    split = (split + [''] * len(shape))[: len(shape)] if any(split) else []
    local = sharding.shard_shape(shape) if sharding is not None and split else shape
    return {
        'name': name,
        'collection': collection,
        'shape': list(shape),
        'dtype': str(leaf.dtype),
        'trained': trained,
        'size': math.prod(shape),
        'bytes': math.prod(shape) * width,
        'bytes_per_device': math.prod(local) * width,
        'sharding': split,
    }


def _parameters(arrays: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [array for array in arrays if array['collection'] == 'params']


def describe_layers(
    variables: Variables,
    trained: Iterable[str],
    frozen: Mapping[str, Any] | None = None,
    order: Sequence[str] = (),
) -> dict[str, Any]:
    """Describes every layer: its arrays, their shapes, sizes and shardings, and whether they are trained.

    Args:
      variables: trees of arrays or `jax.ShapeDtypeStruct`, with shardings once these are known.
      trained: the groups that have a loss.
      frozen: {group: tree of bool like its parameters}, True for a parameter that is not trained.
      order: the result of `call_order`; without it layers are sorted by name.

    Returns:
      {'rows': [group, path, arrays, parameters and bytes of each module], 'totals': trained, frozen and state
      (numbers of elements), bytes, bytes_per_device}.
    """
    trained, frozen, rows = set(trained), frozen or {}, {}

    def add(group: str, path: str, leaf: Any, learns: bool, collection: str) -> None:
        module, _, name = path.rpartition('/')
        rows.setdefault((group, module), []).append(_array(name, leaf, learns, collection))

    for group, tree in variables.params.items():
        held = flatten_paths(frozen[group]) if group in frozen else {}
        for path, leaf in flatten_paths(tree).items():
            add(group, path, leaf, group in trained and not bool(held.get(path, False)), 'params')
    for group, collections in variables.extra.items():
        for collection, tree in collections.items():
            for path, leaf in flatten_paths(tree).items():
                add(group, path, leaf, False, collection)

    first = {}
    for index, path in enumerate(order):
        first.setdefault(tuple(path.rpartition('/')[0].partition('/')[::2]), index)
    groups = list({**variables.params, **variables.extra})
    keys = sorted(rows, key=lambda key: (groups.index(key[0]), first.get(key, len(order)), natural(key[1])))
    arrays = [array for module in rows.values() for array in module]
    parameters = _parameters(arrays)
    return {
        'rows': [
            {
                'group': group,
                'path': path,
                'arrays': sorted(rows[group, path], key=lambda row: (row['collection'] != 'params', -row['size'])),
                'parameters': sum(array['size'] for array in _parameters(rows[group, path])),
                'bytes': sum(array['bytes'] for array in rows[group, path]),
            }
            for group, path in keys
        ],
        'totals': {
            'trained': sum(array['size'] for array in parameters if array['trained']),
            'frozen': sum(array['size'] for array in parameters if not array['trained']),
            'state': sum(array['size'] for array in arrays) - sum(array['size'] for array in parameters),
            'bytes': sum(array['bytes'] for array in arrays),
            'bytes_per_device': sum(array['bytes_per_device'] for array in arrays),
        },
    }


def array_lines(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Lists (names and shape, sharding) of a module's arrays; arrays of equal shape and sharding share a line.

    Such as ('kernel 64×10', 'replicated'), or ('bias, scale 6 × [256]', '(·, fsdp)') for six stacked layers.
    """
    names_of: dict[tuple, list[str]] = {}
    for array in row['arrays']:
        shape = [str(size) for size in array['shape']]
        text = '×'.join(shape) or 'scalar'
        if 'blocks' in row['path'].split('/') and len(shape) > 1:
            text = f'{shape[0]} × [{"×".join(shape[1:])}]'
        axes = ', '.join(axis or '·' for axis in array['sharding'])
        key = (text, array['collection'], f'({axes})' if axes else 'replicated')
        names_of.setdefault(key, []).append(array['name'])
    return [
        (f'{", ".join(names)} {text}' + ('' if collection == 'params' else f' ({collection})'), sharding)
        for (text, collection, sharding), names in names_of.items()
    ]


def layer_table(layers: Mapping[str, Any], limit: int = 80, width: int = 108) -> str:
    """Formats the table of layers in `width` characters; beyond `limit` rows the middle is left out."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    rows, totals = layers['rows'], layers['totals']
    split = any(array['sharding'] for row in rows for array in row['arrays'])
    partly = totals['frozen'] > 0
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    longest = max((len(f'{row["group"]}/{row["path"]}') for row in rows), default=0)
    table.add_column('Layer', overflow='fold', min_width=min(longest, 44))
    table.add_column('Shapes', overflow='fold')
    if split:
        table.add_column('Sharding', overflow='fold')
    table.add_column('Parameters', justify='right', no_wrap=True)
    table.add_column('Memory', justify='right', no_wrap=True)
    if partly:
        table.add_column('Trained', no_wrap=True, min_width=7)
    several = len({row['group'] for row in rows}) > 1
    for index, row in enumerate(rows):
        if limit // 2 <= index < len(rows) - limit // 2:
            if index == limit // 2:
                table.add_row(f'... {len(rows) - limit} more layers')
            continue
        parts = (row['group'] if several else '', row['path'])
        name = '/'.join(filter(None, parts)) or row['group']
        lines = array_lines(row)
        cells = [name, '\n'.join(text for text, _ in lines)]
        if split:
            cells.append('\n'.join(sharding for _, sharding in lines))
        cells += [f'{row["parameters"]:,}', bytes_text(row['bytes'])]
        if partly:
            flags = {array['trained'] for array in _parameters(row['arrays'])}
            cells.append({(True,): 'yes', (False,): 'frozen', (): ''}.get(tuple(flags), 'in part'))
        last = index + 1 == len(rows) or rows[index + 1]['group'] != row['group']
        table.add_row(*cells, end_section=last)
    console = Console(width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(table, highlight=False, markup=False)
    return '\n'.join(line.rstrip() for line in capture.get().strip('\n').split('\n') + totals_lines(totals))


def totals_lines(totals: Mapping[str, int]) -> list[str]:
    """Writes the lines under the table of layers."""
    lines = [f'Trained parameters: {totals["trained"]:,}', f'Frozen parameters: {totals["frozen"]:,}']
    if totals['state']:
        lines.append(f'Other state (statistics): {totals["state"]:,}')
    memory = f'Memory of the variables: {bytes_text(totals["bytes"])}'
    if totals['bytes_per_device'] != totals['bytes']:
        memory += f', {bytes_text(totals["bytes_per_device"])} on each device'
    return [*lines, memory]
