"""The mean of the last checkpoints: equal to NumPy's, told where there are fewer, served by the end of a run."""

import numpy as np
import pytest
from checkpoint_cases import save_steps, state_at

from research.checkpoint.store import read_average
from research.core.config import TrainSettings
from research.errors import UserError


def test_mean_of_the_last_checkpoints(tmp_path):
    save_steps(tmp_path, 3, 5, 8, 20, best=3)
    found = read_average(tmp_path, 3)
    kernels = np.stack([state_at(step).variables.params['model']['kernel'] for step in (5, 8, 20)])
    means = np.stack([state_at(step).variables.extra['model']['batch_stats']['mean'] for step in (5, 8, 20)])
    for name in ('variables', 'ema'):
        kernel = found[name].params['model']['kernel']
        assert kernel.dtype == np.float32
        np.testing.assert_allclose(kernel, kernels.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(found[name].extra['model']['batch_stats']['mean'], means.mean(axis=0), rtol=1e-6)
    assert (found['step'], found['meta']) == (20, {'at': 20})


def test_fewer_checkpoints_are_told(tmp_path):
    said = []
    save_steps(tmp_path, 2, 4)
    found = read_average(tmp_path, 5, said.append)
    np.testing.assert_allclose(
        found['variables'].params['model']['kernel'], state_at(3).variables.params['model']['kernel']
    )
    assert len(said) == 1 and 'has only 2 usable checkpoints' in said[0]
    with pytest.raises(UserError, match='no finished checkpoint'):
        read_average(tmp_path / 'nothing', 5)


def test_more_than_are_kept_is_refused():
    with pytest.raises(UserError, match='keep_last=2'):
        TrainSettings(steps=1, average_checkpoints=5)
