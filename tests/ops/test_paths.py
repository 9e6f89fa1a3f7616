"""Trees by path, patterns, and the message for a pattern that matches nothing."""

from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.errors import UserError
from research.ops.paths import flatten_paths, match, replace_paths, require, select, suggest, unflatten_paths


class Pair(NamedTuple):
    left: object
    right: object


TREE = {
    'blocks': {'mlp': {'up': {'kernel': 1, 'bias': 2}}},
    'embedding': {'embedding': 3},
    'norm': {'scale': 4},
}
NAMES = st.sampled_from(['a', 'b', 'kernel', 'blocks', 'x1'])
TREES = st.recursive(st.integers(), lambda inner: st.dictionaries(NAMES, inner, min_size=1), max_leaves=12)


def test_paths_in_leaf_order():
    flat = flatten_paths(TREE)
    assert list(flat) == ['blocks/mlp/up/bias', 'blocks/mlp/up/kernel', 'embedding/embedding', 'norm/scale']
    assert list(flat.values()) == jax.tree.leaves(TREE)


def test_paths_of_other_nodes():
    assert flatten_paths((Pair({'w': 1}, 2), [3])) == {'0/left/w': 1, '0/right': 2, '1/0': 3}
    assert flatten_paths({'a': None, 'b': 1}) == {'b': 1}


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(NAMES, TREES, min_size=1))
def test_unflatten_is_the_inverse(tree):
    assert unflatten_paths(flatten_paths(tree)) == tree


def test_colliding_paths_are_refused():
    with pytest.raises(ValueError, match='a/b'):
        flatten_paths({'a/b': 1, 'a': {'b': 2}})
    for flat in ({'a': 1, 'a/b': 2}, {'a/b': 1, 'a': 2}):
        with pytest.raises(ValueError, match='another'):
            unflatten_paths(flat)


def test_replace_keeps_structure():
    tree = Pair({'w': np.zeros(2), 'v': 1}, (2, 3))
    new = replace_paths(tree, {'left/v': 7, 'right/1': 8})
    assert isinstance(new, Pair) and new.left['v'] == 7 and new.right == (2, 8)
    assert new.left['w'] is tree.left['w']
    with pytest.raises(KeyError, match='right/2'):
        replace_paths(tree, {'right/2': 0})


def test_match_is_on_the_whole_path():
    assert match('blocks/mlp/up/kernel', ['*kernel'])
    assert match('blocks/mlp/up/kernel', ['blocks/*'])
    assert not match('blocks/mlp/up/kernel', ['kernel'])
    assert not match('blocks/mlp/up/kernel', ['*Kernel'])
    assert not match('blocks/mlp/up/kernel', [])


def test_select_has_the_tree_structure():
    chosen = select(TREE, ('*kernel', 'norm/*'))
    assert jax.tree.structure(chosen) == jax.tree.structure(TREE)
    assert [path for path, on in flatten_paths(chosen).items() if on] == [
        'blocks/mlp/up/kernel',
        'norm/scale',
    ]


def test_require_names_the_nearest():
    require(flatten_paths(TREE), ('*kernel', 'norm/scale'), 'here')
    cases = {'blocks/mlp/up/kernle': 'blocks/mlp/up/kernel', 'blocks': 'blocks/*', '*kernal': '*kernel'}
    for pattern, hint in cases.items():
        with pytest.raises(UserError) as error:
            require(flatten_paths(TREE), ('*kernel', pattern), 'frozen')
        assert str(error.value).startswith(f'frozen: {pattern!r} matches no parameter')
        assert f'did you mean {hint!r}?' in str(error.value)
    with pytest.raises(UserError, match='expected patterns'):
        require(flatten_paths(TREE), (3,), 'here')


def test_every_suggestion_matches():
    for pattern in ('zzz', 'b', 'norm', 'scale', 'embedding', '*/up/*/kernel'):
        hint = suggest(pattern, flatten_paths(TREE)).split("'")[1]
        assert any(match(path, (hint,)) for path in flatten_paths(TREE))


def test_long_lists_are_cut():
    text = suggest('x', [f'layer_{i}/kernel' for i in range(40)])
    assert '(40 in all)' in text and text.count('kernel') < 15
    assert suggest('x', []) == 'there are none'
