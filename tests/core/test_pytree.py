"""Trees by path: what moves from one to another, and what is said about the rest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.core.pytree import check_fit, nest, transfer
from research.errors import UserError
from research.ops.paths import flatten_with_paths as flat

names = st.sampled_from(['kernel', 'bias', 'blocks', 'a/b', '0'])
arrays = st.tuples(st.integers(0, 3), st.integers(1, 2)).map(lambda shape: np.full(shape, 7.0))
trees = st.dictionaries(names, st.recursive(arrays, lambda inner: st.dictionaries(names, inner, max_size=3)))


class Pair(NamedTuple):
    first: object
    second: object


def test_transfer_by_path_and_shape():
    target = Pair(
        {'dense': {'kernel': np.zeros((2, 3), np.float32), 'bias': np.zeros(3)}, 'head': np.ones((3, 5))},
        [jnp.zeros(2, jnp.bfloat16), None],
    )
    source = {
        'first': {'dense': {'kernel': np.full((2, 3), 2.0)}, 'head': np.zeros((3, 7)), 'old': np.zeros(1)},
        'second': {'0': np.array([1.5, 2.5], np.float32)},
    }
    moved, report = transfer(target, source)
    assert jax.tree.structure(moved) == jax.tree.structure(target)
    np.testing.assert_array_equal(moved.first['dense']['kernel'], np.full((2, 3), 2.0))
    assert moved.first['dense']['kernel'].dtype == np.float32 and moved.second[0].dtype == jnp.bfloat16
    assert (
        moved.first['head'] is target.first['head']
        and moved.first['dense']['bias'] is target.first['dense']['bias']
    )
    assert target.first['dense']['kernel'].sum() == 0
    assert sorted(report.matched) == ['first/dense/kernel', 'second/0']
    assert report.missing == ['first/dense/bias'] and report.unused == ['first/old']
    assert report.misshapen == [('first/head', (3, 5), (3, 7))]
    assert str(report).splitlines() == [
        '2 arrays were loaded',
        '1 are not in the source and keep their values:',
        '  first/dense/bias',
        '1 have another shape in the source and keep their values:',
        '  first/head: expected (3, 5), got (3, 7)',
        '1 of the source are not used:',
        '  first/old',
    ]


def test_a_report_names_a_few_and_counts_the_rest():
    many = {f'layer{index}': np.zeros(1) for index in range(9)}
    text = str(transfer(many, {})[1])
    assert '  layer4\n  and 4 more' in text and 'layer5' not in text
    with pytest.raises(UserError, match='and 4 more\nresume with the config'):
        check_fit(flat(many), {}, 'here')
    check_fit(flat(many), flat(many), 'here')


@settings(max_examples=50, deadline=None)
@given(trees, trees)
def test_every_path_is_accounted_for(target, source):
    moved, report = transfer(target, source)
    misshapen = [path for path, _, _ in report.misshapen]
    assert sorted(report.matched + report.missing + misshapen) == sorted(
        '/'.join(path) for path in flat(target)
    )
    assert sorted(report.matched + report.unused + misshapen) == sorted(
        '/'.join(path) for path in flat(source)
    )
    assert [leaf.shape for leaf in jax.tree.leaves(moved)] == [leaf.shape for leaf in jax.tree.leaves(target)]
    assert flat(nest(flat(target))).keys() == flat(target).keys()


@settings(max_examples=30, deadline=None)
@given(trees)
def test_a_tree_transfers_to_itself(tree):
    moved, report = transfer(jax.tree.map(np.zeros_like, tree), tree)
    assert not (report.missing or report.unused or report.misshapen)
    jax.tree.map(np.testing.assert_array_equal, moved, tree)
