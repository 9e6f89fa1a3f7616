"""Leaves of a pytree by path, such as 'blocks/attention/query/kernel', and shell-style patterns of paths."""

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from research.errors import SettingError

MAX_LISTED_PATHS = 12  # per message


def join(keys: tuple) -> str:
    """Formats a key path of `jax.tree_util`: dict keys, field names and indices, joined by '/'."""
    return jax.tree_util.keystr(keys, simple=True, separator='/')


def flatten_with_paths(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> dict[tuple[str, ...], Any]:
    """Flattens a tree to {path as a tuple of names: leaf} in the order of `jax.tree.leaves`.

    None and empty containers are dropped, unless `is_leaf` accepts them.
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf)
    return {tuple(jax.tree_util.keystr((key,), simple=True) for key in keys): leaf for keys, leaf in leaves}


def flatten_paths(tree: Any) -> dict[str, Any]:
    """Flattens a tree to {path: leaf} in the order of `jax.tree.leaves`: dicts by sorted key, tuples by index or field.

    Raises:
      ValueError: if two leaves have the same path, as in {'a/b': 1, 'a': {'b': 2}}.
    """
    pairs = [(join(keys), leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)]
    flat = dict(pairs)
    if len(flat) != len(pairs):
        paths = [path for path, _ in pairs]
        raise ValueError(f'two leaves share a path: {sorted(path for path in flat if paths.count(path) > 1)}')
    return flat


def unflatten_paths(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nests {path: leaf} into dicts: the inverse of `flatten_paths` for trees of dicts.

    Raises:
      ValueError: if one path is a prefix of another, as 'a' of 'a/b'.
    """
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *above, last = path.split('/')
        node = tree
        for part in above:
            node = node.setdefault(part, {})
            if not isinstance(node, dict):
                raise ValueError(f'path {path!r} continues beyond the leaf of another path')
        if last in node:
            raise ValueError(f'path {path!r} is a prefix of another path, or a duplicate')
        node[last] = leaf
    return tree


def replace_paths(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """Replaces leaves of a tree of any structure by path.

    Raises:
      KeyError: for a path that `tree` lacks.
    """
    flat = flatten_paths(tree)
    absent = [path for path in leaves if path not in flat]
    if absent:
        raise KeyError(absent[0])
    return jax.tree.unflatten(jax.tree.structure(tree), list({**flat, **leaves}.values()))


def match(path: str, patterns: Iterable[str]) -> bool:
    """Whether the whole path matches a shell-style pattern; case-sensitive, and '*' also matches '/'."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def select(tree: Any, patterns: Iterable[str]) -> Any:
    """Maps a tree to True at each leaf whose path matches one of `patterns`, and False elsewhere."""
    patterns = tuple(patterns)
    return jax.tree_util.tree_map_with_path(lambda keys, _: match(join(keys), patterns), tree)


def require(paths: Iterable[str], patterns: Iterable[str], where: str) -> None:
    """Checks that every pattern matches at least one path.

    Args:
      paths: the paths that exist.
      patterns: as given by the user.
      where: the setting that contains them, for the message ('frozen').

    Raises:
      SettingError: for the first pattern that matches nothing; suggests the nearest one that does.
    """
    paths = list(paths)
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise SettingError(f'{where}:', f'expected patterns of paths, got {pattern!r}')
        if not any(match(path, (pattern,)) for path in paths):
            raise SettingError(f'{where}:', f'{pattern!r} matches no parameter; {suggest(pattern, paths)}')


def suggest(pattern: str, paths: Iterable[str]) -> str:
    """Hint for a pattern that matches nothing: the nearest one that does, and the existing paths."""
    paths = list(paths)
    if not paths:
        return 'there are none'
    listed = ', '.join(paths[:MAX_LISTED_PATHS])
    if len(paths) > MAX_LISTED_PATHS:
        listed += f', ... ({len(paths)} in all)'
    choices = set(paths)
    for path in paths:
        parts = path.split('/')
        choices.update('/'.join(parts[:end]) + '/*' for end in range(1, len(parts)))
        choices.update('*' + '/'.join(parts[start:]) for start in range(1, len(parts)))
    close = difflib.get_close_matches(pattern, sorted(choices), n=1, cutoff=0.0)
    return f'did you mean {close[0]!r}? There are: {listed}'
