"""Generated pictures against real ones, as clouds of points in a space of features: sums, then metrics."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from research.ops.frechet import Moments, frechet_distance, moment_sums, moments
from research.ops.kernel_distance import (
    KEPT,
    WIDEST,
    Cloud,
    KernelPoints,
    KernelSums,
    kernel_distance,
    kernel_distance_of_point,
    kernel_points,
    kernel_sums,
)

PARTS = ('count', 'sum', 'square')  # of `moment_sums`
FILE = 'features.npz'
Row = tuple[float, float | None, str, str, str]  # value, baseline, better, about, about the baseline


class Train(NamedTuple):
    """What is known of the training pictures' features."""

    count: int
    moments: Moments
    kernel: Cloud | None  # None: no kernel distance is asked for


def cloud_sums(
    name: str,
    points: Float[Array, 'batch width'],
    mean: np.ndarray,
    index: Int[Array, 'batch'],
    mask: Float[Array, 'batch'],
    kernel: bool,
) -> dict[str, Array]:
    """Returns the sums over a batch of a cloud called `name`: moments about `mean`, and for the kernel distance.

    Of wide points those are kept whose `index` is below 2,000, each of them once.
    """
    sums = dict(zip(PARTS, moment_sums(points - np.float32(mean), mask), strict=True))
    if kernel and points.shape[1] > WIDEST:
        sums['points'] = kernel_points(points, index, mask)
    elif kernel:
        sums.update(zip(('cube', 'own'), kernel_sums(points, mask)[1:], strict=True))
    return {f'{name}_{part}': value for part, value in sums.items()}


def train_cloud(features: Any, kernel: bool) -> Train:
    """Returns the training cloud from an iterator of batches of features, summed in float64."""
    count, total, square, cube, own, kept = 0, 0.0, 0.0, 0.0, 0.0, []
    for part in features:
        part = np.asarray(part, np.float64)
        if kernel and part.shape[1] > WIDEST:
            kept.append(np.float32(part[: max(0, KEPT - count)]))
        count, total, square = count + len(part), total + part.sum(0), square + part.T @ part
        if kernel and not kept:
            lifted = np.hstack([part / part.shape[1] ** 0.5, np.ones((len(part), 1))])
            pairs = np.einsum('ni,nj->nij', lifted, lifted).reshape(len(part), -1)
            cube, own = cube + lifted.T @ pairs, own + ((lifted**2).sum(1) ** 3).sum()
    cloud = KernelPoints(np.concatenate(kept)) if kept else KernelSums(count, cube, float(own)) if kernel else None
    return Train(count, moments(count, total, square), cloud)


def store_train(train: Train, folder: Any) -> None:
    """Writes the training cloud into a folder (an `epath.Path`)."""
    parts = {'count': np.array(train.count), 'mean': train.moments.mean, 'covariance': train.moments.covariance}
    if isinstance(train.kernel, KernelPoints):
        parts.update(points=train.kernel.points)
    elif train.kernel is not None:
        parts.update(cube=train.kernel.cube, own=np.array(train.kernel.own))
    with (folder / FILE).open('wb') as file:
        np.savez(file, **parts)


def read_train(folder: Any, kernel: bool) -> Train:
    """Returns what `store_train` wrote; its part for the kernel distance only where that is asked for."""
    with (folder / FILE).open('rb') as file, np.load(file) as parts:
        count = int(parts['count'])
        cloud = kernel_cloud(parts, count) if kernel else None
        return Train(count, Moments(parts['mean'], parts['covariance']), cloud)


def kernel_cloud(parts: Mapping[str, np.ndarray], count: float, prefix: str = '', rows: float = KEPT) -> Cloud:
    """Returns what the kernel distance needs of a cloud of `count`, from sums or from what was stored.

    Of kept points the first `rows` are meant.
    """
    if f'{prefix}points' in parts:
        return KernelPoints(parts[f'{prefix}points'][: int(rows)])
    cube, own = (np.asarray(parts[f'{prefix}{part}'], np.float64) for part in ('cube', 'own'))
    return KernelSums(float(count), cube, float(own))


def cloud_metrics(
    sums: Mapping[str, np.ndarray], train: Train, space: str, about: str, fakes: int, inception: bool = False
) -> dict[str, Row]:
    """Returns the metrics of the clouds 'real' and 'fake': Fréchet and kernel distance, their floors, and the spread.

    Args:
      sums: of `cloud_sums`, added up over a split.
      train: of the training split.
      space: the name of the space of features, which the metrics bear.
      about: its signature.
      fakes: generated pictures for each real one.
      inception: whether the space is Inception's, in which the distances are called FID and KID.
    """
    # The moments are about the training mean, so that mean is zero there.
    centred = train.moments._replace(mean=np.zeros(len(train.moments.mean)))
    independent = centred._replace(covariance=np.diag(np.diag(centred.covariance)))
    real, fake = (moments(*(sums[f'{name}_{part}'] for part in PARTS)) for name in ('real', 'fake'))
    counts = {name: int(sums[f'{name}_count']) for name in ('real', 'fake')}
    drawn = f'{about}|real:{counts["real"]}|fake:{counts["fake"]}'
    floor = f'{about}|real:{counts["real"]}|train:{train.count}'
    noise = f'{space} drawn one by one, normal, with their training mean and deviation'
    baseline = frechet_distance(independent, real)
    called = 'Fréchet Inception distance (FID)' if inception else 'Fréchet distance (not of Inception features)'
    rows = {
        f'frechet_{space}': (
            frechet_distance(fake, real), baseline, 'lower',
            f'{called}, {fakes} generated pictures for each of this split; {drawn}',
            noise,
        ),
        f'frechet_{space}_floor': (
            frechet_distance(centred, real), baseline, 'lower',
            f'the same from the training pictures to this split: as near as real ones are; {floor}', noise,
        ),
    }  # fmt: skip
    if train.kernel is not None:
        rows.update(kernel_metrics(sums, train, space, drawn, floor, inception))
    spread = float(np.trace(fake.covariance) / np.trace(real.covariance))
    words = f'variance of the generated pictures over that of the real ones, {space}: 1 is right'
    return {**rows, 'spread': (spread, None, '', words, '')}


def kernel_metrics(
    sums: Mapping[str, np.ndarray], train: Train, space: str, drawn: str, floor: str, inception: bool
) -> dict[str, Row]:
    """Returns the kernel distance of the generated pictures, and that of the training ones."""
    rows = min(KEPT, sums['real_count'])
    real, fake = (kernel_cloud(sums, sums[f'{name}_count'], f'{name}_', rows) for name in ('real', 'fake'))
    point = f'always the training mean of the {space}'
    baseline = kernel_distance_of_point(train.moments.mean, real)
    called = 'Kernel Inception distance (KID)' if inception else 'kernel distance (KID, but not of Inception features)'
    which = f'of the first {KEPT:,} of each' if isinstance(real, KernelPoints) else 'no subsets'
    words = f'unbiased squared discrepancy under (x.y / d + 1)^3, exact over all pairs, {which}'
    return {
        f'kernel_{space}': (
            kernel_distance(fake, real), baseline, 'lower',
            f'{called}: {words}; {drawn}', point,
        ),
        f'kernel_{space}_floor': (
            kernel_distance(train.kernel, real), baseline, 'lower',
            f'the same from the training pictures to this split; {floor}', point,
        ),
    }  # fmt: skip
