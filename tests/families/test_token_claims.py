"""Claims of token tasks against rows made one by one in NumPy, and which targets count."""

import jax.numpy as jnp
import numpy as np
import pytest

from research.families.tokens import claim_continuation, make_claim_target, target_mask

LENGTH, NEW = 8, 3


def continued(kind):
    """A batch of requests or rows, and what was written for them: to the end, not at all, and after one token."""
    prompts, written = ([1, 2, 3, 4], [1, 2, 3, 4, 5, 6, 7, 8], [9]), ([5, 6, 7], [], [8])
    outputs = {
        'prompt': np.array([prompt + [50] * (LENGTH - len(prompt)) for prompt in prompts], np.int32),
        'prompt_length': np.array([len(prompt) for prompt in prompts], np.int32),
        'tokens': np.array([text + [0] * (NEW - len(text)) for text in written], np.int32),
        'length': np.array([len(text) for text in written], np.int32),
    }
    batch = {'mask': np.ones(3, np.float32), 'tokens': outputs['prompt'], 'length': outputs['prompt_length']}
    more = {'packed': {'segments': np.tile([0, 0, 0, 0, 1, 1, -1, -1], (3, 1)).astype(np.int32)},
            'prefix': {'prefix': np.array([2, 2, 1], np.int32)}}  # fmt: skip
    return prompts, written, outputs, {**batch, **more.get(kind, {})}


@pytest.mark.parametrize('kind', ('causal', 'packed', 'prefix'))
def test_a_continuation_is_claimed_token_by_token(kind):
    prompts, written, outputs, batch = continued(kind)
    claim = claim_continuation(batch, {name: jnp.asarray(value) for name, value in outputs.items()})
    mask = np.asarray(target_mask(claim)) * (np.asarray(claim['targets']) >= 0)
    for row, (prompt, text) in enumerate(zip(prompts, written, strict=True)):
        whole = prompt + text
        count = len(whole) - 1
        assert claim['length'][row] == count
        assert claim['tokens'][row].tolist() == whole[:-1] + [0] * (LENGTH - count)
        expected = [-1] * (len(prompt) - 1) + text
        assert claim['targets'][row].tolist() == expected + [-1] * (LENGTH - len(expected))
        assert mask[row].tolist() == [float(target >= 0) for target in claim['targets'][row]]
        if kind == 'packed':
            assert claim['segments'][row].tolist() == [0] * count + [-1] * (LENGTH - count)
        if kind == 'prefix':
            assert claim['prefix'][row] == len(prompt)
    assert all(claim[name].dtype == np.int32 for name in claim if name != 'mask')


@pytest.mark.parametrize('packed', (False, True))
def test_a_target_is_claimed_behind_its_start(packed):
    source = np.array([[4, 5, 0, 0], [6, 7, 8, 0]], np.int32)
    batch = {'mask': np.ones(2, np.float32), 'source': source, 'tokens': np.full((2, 1), 9, np.int32)}
    lengths = {'source_length': np.array([2, 3], np.int32), 'length': np.ones(2, np.int32)}
    segments = {
        'source_segments': np.array([[1, 1, 2, 0], [1, 1, 1, 2]], np.int32), 'segments': np.ones((2, 6), np.int32)
    }  # fmt: skip
    outputs = {
        'source': source, 'source_length': lengths['source_length'],
        'tokens': jnp.array([[1, 2, 0], [1, 0, 0]], jnp.int32), 'length': jnp.array([3, 1], jnp.int32),
    }  # fmt: skip
    claim = make_claim_target(9, 5, 6)({**batch, **(segments if packed else lengths)}, outputs)
    assert claim['source'].tolist() == [[4, 5, 0, 0, 0], [6, 7, 8, 0, 0]]
    assert claim['tokens'].tolist() == [[9, 1, 2, 0, 0, 0], [9, 1, 0, 0, 0, 0]]
    assert claim['targets'].tolist() == [[1, 2, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert target_mask(claim).tolist() == [[1, 1, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    if packed:
        assert claim['source_segments'].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]


def test_targets_that_count_are_real_and_behind_a_prefix():
    batch = {'tokens': np.zeros((2, 5), int), 'length': np.array([4, 5]), 'mask': np.float32([1, 0])}
    assert target_mask(batch).tolist() == [[1, 1, 1, 1, 0], [0] * 5]
    assert target_mask({**batch, 'prefix': np.array([3, 1])}).tolist() == [[0, 0, 1, 1, 0], [0] * 5]
