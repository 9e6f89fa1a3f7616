"""Metrics of two clouds: what the streamed sums give is what all points together give."""

import numpy as np
import pytest
import scipy.linalg
from etils import epath
from test_kernel_distance import by_pairs

from research.ops.generative_metrics import cloud_metrics, cloud_sums, read_train, store_train, train_cloud
from research.ops.kernel_distance import MAX_STORED_POINTS, MAX_SUMMED_WIDTH

RNG = np.random.default_rng(0)
CLOUDS = {
    name: RNG.gamma(2.0, scale, size=(count, 3))
    for name, count, scale in (('train', 50, 1.0), ('real', 20, 1.0), ('fake', 40, 1.5))
}


def frechet(first, second):
    """Returns the distance by SciPy's general matrix root, in float64."""
    covariances = [np.cov(each, rowvar=False) for each in (first, second)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(sum(covariances) - 2 * root)


def test_metrics_floors_and_signature(tmp_path):
    store_train(train_cloud(np.array_split(CLOUDS['train'], 3), True), epath.Path(tmp_path))
    train = read_train(epath.Path(tmp_path), True)
    assert read_train(epath.Path(tmp_path), False).kernel is None
    sums = {}
    for name in ('real', 'fake'):
        points, mask = np.float32(CLOUDS[name]), np.ones(len(CLOUDS[name]), np.float32)
        part = cloud_sums(name, points, train.moments.mean, np.arange(len(points)), mask, True)
        sums.update({key: np.asarray(value, np.float64) for key, value in part.items()})
    rows = cloud_metrics(sums, train, 'space', 'features:mine', 2)
    value = {name: row[0] for name, row in rows.items()}
    assert value['frechet_space'] == pytest.approx(frechet(CLOUDS['fake'], CLOUDS['real']), rel=1e-4)
    assert value['frechet_space_floor'] == pytest.approx(frechet(CLOUDS['train'], CLOUDS['real']), rel=1e-4)
    assert value['kernel_space'] == pytest.approx(by_pairs(CLOUDS['fake'], CLOUDS['real']), rel=1e-4)
    assert value['kernel_space_floor'] == pytest.approx(by_pairs(CLOUDS['train'], CLOUDS['real']), rel=1e-3, abs=1e-4)
    mean = np.tile(CLOUDS['train'].mean(0), (2, 1))
    assert rows['kernel_space'][1] == pytest.approx(by_pairs(mean, CLOUDS['real']), rel=1e-4)
    assert 'features:mine|real:20|fake:40' in rows['kernel_space'][3]
    assert 'features:mine|real:20|train:50' in rows['frechet_space_floor'][3]
    assert 'spread' in rows and all('not of Inception' in rows[name][3] for name in ('kernel_space', 'frechet_space'))
    named = cloud_metrics(sums, train._replace(kernel=None), 'inception', 'features:theirs', 2, True)
    number, *_, words, _ = named['frechet_inception']
    assert number == value['frechet_space'] and words.startswith('Fréchet Inception distance (FID), 2 ')


def test_of_wide_points_the_first_of_each_row_are_kept_and_paired(tmp_path):
    """Two pictures are drawn for each row, rows come in batches with padding, in any order."""
    width, rows = MAX_SUMMED_WIDTH + 1, 7
    train, real, first, second = (RNG.normal(size=(count, width)) for count in (9, rows, rows, rows))
    store_train(train_cloud(np.array_split(train, 4), True), epath.Path(tmp_path))
    known, totals = read_train(epath.Path(tmp_path), True), {}
    for chosen in ([3, 4, 5, 6], [0, 1, 2, 0]):
        index, mask = np.array(chosen), np.float32([1, 1, 1, chosen[3] > 0])
        parts = [('real', real, index), ('fake', first, index), ('fake', second, index + MAX_STORED_POINTS)]
        for name, points, place in parts:
            held = np.float32(points[index])
            for key, value in cloud_sums(name, held, known.moments.mean, place, mask, True).items():
                totals[key] = totals.get(key, 0) + np.asarray(value, np.float64)
    rows = cloud_metrics(totals, known, 'inception', 'features:theirs', 2, True)
    assert totals['fake_count'] == 14 and totals['fake_points'].shape == (MAX_STORED_POINTS, width)
    assert rows['kernel_inception'][0] == pytest.approx(by_pairs(first, real), rel=1e-4)
    assert rows['kernel_inception_floor'][0] == pytest.approx(by_pairs(train, real), rel=1e-4)
    mean = np.tile(train.mean(0), (2, 1))
    assert rows['kernel_inception'][1] == pytest.approx(by_pairs(mean, real), rel=1e-4)
    words = rows['kernel_inception'][3]
    assert words.startswith('Kernel Inception distance (KID): ') and 'the first 2,000 of each' in words
    assert rows['frechet_inception'][0] == pytest.approx(frechet(np.vstack([first, second]), real), rel=1e-3)
