"""Metrics of generated images: sums on the device, and distances to real images in a feature space."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from research.ops.frechet import Moments, frechet_distance, moment_sums, moments
from research.ops.kernel_distance import (
    MAX_STORED_POINTS,
    MAX_SUMMED_WIDTH,
    KernelPoints,
    KernelStats,
    KernelSums,
    kernel_distance,
    kernel_distance_of_point,
    kernel_points,
    kernel_sums,
)

PARTS = ('count', 'sum', 'square')  # of `moment_sums`
FILE = 'features.npz'
Row = tuple[float, float | None, str, str, str]  # value, baseline, better, about, about the baseline


class ReferenceStats(NamedTuple):
    """Statistics of the training images' features."""

    count: int
    moments: Moments
    kernel: KernelStats | None  # None: no kernel distance


def cloud_sums(
    name: str,
    points: Float[Array, 'batch width'],
    mean: np.ndarray,
    index: Int[Array, 'batch'],
    mask: Float[Array, 'batch'],
    kernel: bool,
) -> dict[str, Array]:
    """Computes the sums of a batch of points under keys that start with `name`: moments about `mean`, kernel sums.

    For points wider than `MAX_SUMMED_WIDTH`, the points with `index` below `MAX_STORED_POINTS` are stored instead.
    """
    sums: dict[str, Array] = dict(zip(PARTS, moment_sums(points - np.float32(mean), mask), strict=True))
    if kernel and points.shape[1] > MAX_SUMMED_WIDTH:
        sums['points'] = kernel_points(points, index, mask)
    elif kernel:
        sums.update(zip(('cube', 'own'), kernel_sums(points, mask)[1:], strict=True))
    return {f'{name}_{part}': value for part, value in sums.items()}


def train_cloud(features: Any, kernel: bool) -> ReferenceStats:
    """Computes the training statistics from an iterator of batches of features, in float64."""
    count = 0
    total = 0.0
    square = 0.0
    cube = 0.0
    diagonal = 0.0
    stored = []
    for part in features:
        part = np.asarray(part, np.float64)
        if kernel and part.shape[1] > MAX_SUMMED_WIDTH:
            stored.append(np.float32(part[: max(0, MAX_STORED_POINTS - count)]))
        count, total, square = count + len(part), total + part.sum(0), square + part.T @ part
        if kernel and not stored:
            lifted = np.hstack([part / part.shape[1] ** 0.5, np.ones((len(part), 1))])
            pairs = np.einsum('ni,nj->nij', lifted, lifted).reshape(len(part), -1)
            cube, diagonal = cube + lifted.T @ pairs, diagonal + ((lifted**2).sum(1) ** 3).sum()
    stats: KernelStats | None = None
    if stored:
        stats = KernelPoints(np.concatenate(stored))
    elif kernel:
        stats = KernelSums(count, cube, float(diagonal))  # pyright: ignore[reportArgumentType]
    return ReferenceStats(count, moments(count, total, square), stats)  # pyright: ignore[reportArgumentType]


def store_train(train: ReferenceStats, folder: Any) -> None:
    """Writes the training statistics to a folder (an `epath.Path`)."""
    parts = {'count': np.array(train.count), 'mean': train.moments.mean, 'covariance': train.moments.covariance}
    if isinstance(train.kernel, KernelPoints):
        parts.update(points=train.kernel.points)
    elif train.kernel is not None:
        parts.update(cube=train.kernel.cube, own=np.array(train.kernel.diagonal))
    with (folder / FILE).open('wb') as file:
        np.savez(file, **parts)  # pyright: ignore[reportArgumentType]


def read_train(folder: Any, kernel: bool) -> ReferenceStats:
    """Reads the file of `store_train`; with `kernel`, including the part for the kernel distance."""
    with (folder / FILE).open('rb') as file, np.load(file) as parts:
        count = int(parts['count'])
        stats = kernel_stats(parts, count) if kernel else None
        return ReferenceStats(count, Moments(parts['mean'], parts['covariance']), stats)


def kernel_stats(
    parts: Mapping[str, np.ndarray], count: float, prefix: str = '', rows: float = MAX_STORED_POINTS
) -> KernelStats:
    """Reads the input of the kernel distance for `count` points, from sums or from a stored file.

    If points were stored, only the first `rows` are used.
    """
    if f'{prefix}points' in parts:
        return KernelPoints(parts[f'{prefix}points'][: int(rows)])
    cube, diagonal = (np.asarray(parts[f'{prefix}{part}'], np.float64) for part in ('cube', 'own'))
    return KernelSums(float(count), cube, float(diagonal))


def cloud_metrics(
    sums: Mapping[str, np.ndarray], train: ReferenceStats, space: str, about: str, fakes: int, inception: bool = False
) -> dict[str, Row]:
    """Computes Fréchet and kernel distance of 'real' and 'fake', their floors, and the spread.

    Args:
      sums: of `cloud_sums`, added up over a split.
      train: statistics of the training split.
      space: name of the feature space, part of the metrics' names.
      about: signature of the feature space.
      fakes: generated images per real one.
      inception: whether the features are Inception's, for which the distances are FID and KID.
    """
    # The sums are about the training mean, so in these coordinates it is zero.
    centred = train.moments._replace(mean=np.zeros(len(train.moments.mean)))
    independent = centred._replace(covariance=np.diag(np.diag(centred.covariance)))
    real, fake = (moments(*(sums[f'{name}_{part}'] for part in PARTS)) for name in ('real', 'fake'))  # pyright: ignore[reportArgumentType]
    counts = {name: int(sums[f'{name}_count']) for name in ('real', 'fake')}
    drawn = f'{about}|real:{counts["real"]}|fake:{counts["fake"]}'
    floor = f'{about}|real:{counts["real"]}|train:{train.count}'
    noise = f'independent normal {space} with the mean and deviation of the training split'
    baseline = frechet_distance(independent, real)
    called = 'Fréchet Inception distance (FID)' if inception else 'Fréchet distance (not of Inception features)'
    rows: dict[str, Row] = {
        f'frechet_{space}': (
            frechet_distance(fake, real), baseline, 'lower',
            f'{called}, {fakes} generated images per image of this split; {drawn}',
            noise,
        ),
        f'frechet_{space}_floor': (
            frechet_distance(centred, real), baseline, 'lower',
            f'the same from the training images to this split, a floor for generated ones; {floor}', noise,
        ),
    }  # fmt: skip
    if train.kernel is not None:
        rows.update(kernel_metrics(sums, train, space, drawn, floor, inception))
    spread = float(np.trace(fake.covariance) / np.trace(real.covariance))
    meaning = f'variance of the generated images divided by that of the real ones, {space}; ideal: 1'
    return {**rows, 'spread': (spread, None, '', meaning, '')}


def kernel_metrics(
    sums: Mapping[str, np.ndarray], train: ReferenceStats, space: str, drawn: str, floor: str, inception: bool
) -> dict[str, Row]:
    """Computes the kernel distance of the generated images, and that of the training images."""
    rows = min(MAX_STORED_POINTS, float(sums['real_count']))
    real, fake = (kernel_stats(sums, float(sums[f'{name}_count']), f'{name}_', rows) for name in ('real', 'fake'))
    point = f'always the training mean of the {space}'
    baseline = kernel_distance_of_point(train.moments.mean, real)
    called = 'Kernel Inception distance (KID)' if inception else 'kernel distance (KID, but not of Inception features)'
    subset = f'the first {MAX_STORED_POINTS:,} of each' if isinstance(real, KernelPoints) else 'no subsets'
    meaning = f'unbiased squared MMD under (x.y / d + 1)^3, exact over all pairs, {subset}'
    return {
        f'kernel_{space}': (
            kernel_distance(fake, real), baseline, 'lower',
            f'{called}: {meaning}; {drawn}', point,
        ),
        f'kernel_{space}_floor': (
            kernel_distance(train.kernel, real), baseline, 'lower',  # pyright: ignore[reportArgumentType]
            f'the same from the training images to this split; {floor}', point,
        ),
    }  # fmt: skip
