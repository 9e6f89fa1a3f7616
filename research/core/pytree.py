"""Pytrees of arrays by path: compare two trees, and copy matching leaves from one to the other."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from research.core.task import Tree
from research.errors import UserError
from research.ops.paths import flatten_with_paths

MAX_NAMED_PATHS = 5  # in a message
Path = tuple[str, ...]  # the keys from the root to a leaf


def nest(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Builds nested dicts from {path: leaf}."""
    nested: dict[str, Any] = {}
    for path, leaf in leaves.items():
        inner = nested
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = leaf
    return nested


def shape_text(leaf: Any) -> str:
    """Dtype and shape as text: 'float32[3,4]'."""
    return f'{np.dtype(leaf.dtype).name}[{",".join(map(str, leaf.shape))}]'


def first_lines(lines: list[str]) -> list[str]:
    """The first `MAX_NAMED_PATHS` lines, indented, and the number of the others."""
    more = len(lines) - MAX_NAMED_PATHS
    first = [f'  {line}' for line in lines[:MAX_NAMED_PATHS]]
    return [*first, f'  and {more} more'] if more > 0 else first


def check_fit(saved: Mapping[Path, Any], wanted: Mapping[Path, Any], where: str) -> None:
    """Raises `UserError` if a saved state does not match the expected one; names the first paths."""
    differences = []
    for path in [*wanted, *(path for path in saved if path not in wanted)]:
        present, expected = (shape_text(tree[path]) if path in tree else 'nothing' for tree in (saved, wanted))
        if present != expected:
            differences.append(f'{"/".join(path)}: saved {present}, expected {expected}')
    if differences:
        raise UserError(
            '\n'.join([f'{where}: the saved state does not match this config', *first_lines(differences)])
            + '\nresume with the config that this run started with (config.json), or train in another folder'
        )


class Transfer(NamedTuple):
    """The outcome per path of a transfer between two trees; `str()` gives a report."""

    matched: list[str]
    missing: list[str]  # in the target only
    unused: list[str]  # in the source only
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]]  # path, shape in the target, in the source

    @property
    def kept(self) -> list[str]:
        """The paths of the target that keep their values."""
        return [*self.missing, *(path for path, _, _ in self.misshapen)]

    def __str__(self) -> str:
        shapes = [f'{path}: expected {wanted}, got {given}' for path, wanted, given in self.misshapen]
        lines = [f'{len(self.matched)} arrays were loaded']
        for paths, outcome in (
            (self.missing, 'are not in the source and keep their values'),
            (shapes, 'have another shape in the source and keep their values'),
            (self.unused, 'of the source are not used'),
        ):
            if paths:
                lines += [f'{len(paths)} {outcome}:', *first_lines(paths)]
        return '\n'.join(lines)


def transfer(target: Tree, source: Tree) -> tuple[Tree, Transfer]:
    """Copies the leaves of `source` into `target` where path and shape match; returns (new tree, report).

    Leaves are cast to the target's dtype; leaves of the target without a match stay. A pure function on host trees.
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
