"""Trees of arrays by path: how a saved tree and a wanted one compare, and what moves from one to another."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from research.core.task import Tree
from research.errors import UserError
from research.ops.paths import flatten_with_paths

SHOWN = 5  # paths named in a message
Path = tuple[str, ...]  # the names on the way to a leaf


def nest(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Returns nested dicts with a leaf at each path."""
    nested: dict[str, Any] = {}
    for path, leaf in leaves.items():
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = leaf
    return nested


def shape_text(leaf: Any) -> str:
    """Returns dtype and shape as a person writes them: 'float32[3,4]'."""
    return f'{np.dtype(leaf.dtype).name}[{",".join(map(str, leaf.shape))}]'


def first_lines(lines: list[str]) -> list[str]:
    """Returns the first few lines, indented, and the number of the rest."""
    more = len(lines) - SHOWN
    return [f'  {line}' for line in lines[:SHOWN]] + [f'  and {more} more'] * (more > 0)


def check_fit(saved: Mapping[Path, Any], wanted: Mapping[Path, Any], where: str) -> None:
    """Raises a `UserError` that names the first paths where a saved state is not the one wanted."""
    differences = []
    for path in [*wanted, *(path for path in saved if path not in wanted)]:
        found, asked = (shape_text(tree[path]) if path in tree else 'nothing' for tree in (saved, wanted))
        if found != asked:
            differences.append(f'{"/".join(path)}: {found} is saved, {asked} is wanted')
    if differences:
        raise UserError(
            '\n'.join([f'{where}: the saved state is not that of this config', *first_lines(differences)])
            + '\ngo on with the config that this run started with (config.json), or train in another folder'
        )


class Transfer(NamedTuple):
    """What became of each path when leaves moved from one tree to another; `str()` of it is a report."""

    matched: list[str]
    missing: list[str]  # in the target only
    unused: list[str]  # in the source only
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]  # path, shape in the target, in the source

    def __str__(self) -> str:
        shapes = [f'{path}: {wanted} is wanted, {found} found' for path, wanted, found in self.misshapen]
        lines = [f'{len(self.matched)} arrays were taken over']
        for paths, about in (
            (self.missing, 'are not in the source and stay as they were'),
            (shapes, 'have another shape in the source and stay as they were'),
            (self.unused, 'of the source are not used'),
        ):
            if paths:
                lines += [f'{len(paths)} {about}:', *first_lines(paths)]
        return '\n'.join(lines)


def transfer(target: Tree, source: Tree) -> tuple[Tree, Transfer]:
    """Returns (`target` with the leaves of `source` that have the same path and shape, report).

    Leaves are cast to the target's dtype; where nothing matches, the target's own leaf stays. A pure function
    on host trees: neither argument is changed.
    """
    given, wanted = flatten_with_paths(source), flatten_with_paths(target)
    matched, missing, misshapen, leaves = [], [], [], []
    for path, leaf in wanted.items():
        text, new = '/'.join(path), given.get(path)
        if new is None:
            missing.append(text)
        elif tuple(new.shape) != tuple(leaf.shape):
            misshapen.append((text, tuple(leaf.shape), tuple(new.shape)))
        else:
            matched.append(text)
            leaf = np.asarray(new).astype(leaf.dtype)
        leaves.append(leaf)
    unused = ['/'.join(path) for path in given if path not in wanted]
    moved = jax.tree.unflatten(jax.tree.structure(target), leaves)
    return moved, Transfer(matched, missing, unused, misshapen)
