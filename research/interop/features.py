"""Spaces of features in which generated pictures are held against real ones.

    'pixels'      the pictures themselves, made smaller
    'classifier'  what enters the last layer of a classifier of pictures that this codebase has trained
    'inception'   Inception-v3, from a file of the user's: the space of the Fréchet Inception distance

A space has a signature that says what it is, down to the hash of its weights, so that metrics of one are never
taken for those of another.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from research.core.task import Batch, Context, Variables
from research.data.image.images import fit_image
from research.errors import UserError, choose
from research.interop.inception import read_inception
from research.nn.inception import SIDE, InceptionV3
from research.ops.paths import flatten_paths

POOLED = 'pooled'  # the tap before the last layer of a classifier: the features


class Space(NamedTuple):
    """A function from pictures to points."""

    name: str
    signature: str
    width: int
    of: Callable[[Float[Array, 'batch height width channels']], Float[Array, 'batch width']]
    rows: int = 1024  # pictures that fit into memory at a time
    inception: bool = False  # distances in it are FID and KID


def resized(
    pictures: Float[Array, 'batch height width channels'], size: tuple[int, int]
) -> Float[Array, 'batch height_out width_out channels']:
    """Returns pictures at another size, through an antialiasing triangle filter; as they are where they fit."""
    if pictures.shape[1:3] == size:
        return pictures
    shape = (len(pictures), *size, pictures.shape[-1])
    return jax.image.resize(pictures, shape, 'linear', antialias=True)


def resize_text(shape: tuple[int, int, int], size: tuple[int, int]) -> str:
    """Returns how a signature says what `resized` does."""
    height, width = shape[:2]
    return 'none' if (height, width) == size else f'linear-antialias-{height}x{width}-to-{size[0]}x{size[1]}'


def make_space(
    name: str, shape: tuple[int, int, int], pixels: int, network: str, load: Callable | None
) -> Space:
    """Returns the space of features called `name`.

    Args:
      name: 'pixels', 'classifier' or 'inception'.
      shape: height, width and channels of the pictures.
      pixels: 'pixels' are of pictures shrunk to at most so many along a side.
      network: the folder of the classifier's run, or the file of Inception's weights.
      load: (folder) -> `inference.model.Trained`, given by who resolves names.

    Raises:
      UserError: for an unknown name, a network that is not there or does not fit.
    """
    makers = {
        'pixels': lambda: pixel_space(shape, pixels),
        'classifier': lambda: classifier_space(shape, network, load),
        'inception': lambda: inception_space(shape, network),
    }
    return choose(name, makers, 'config.task.features')()


def pixel_space(shape: tuple[int, int, int], most: int) -> Space:
    """Returns pictures as they are, at most `most` pixels along a side, flattened."""
    height, width, channels = shape
    size, largest = (height, width), max(height, width)
    if largest > most:
        size = (max(1, height * most // largest), max(1, width * most // largest))
    values = size[0] * size[1] * channels
    signature = f'features:pixels|values:{values}|range:0-1|resize:{resize_text(shape, size)}'
    return Space('pixels', signature, values, lambda pictures: resized(pictures, size).reshape(len(pictures), -1))


def inception_space(shape: tuple[int, int, int], network: str, thinner: int = 1) -> Space:
    """Returns the 2,048 features of Inception-v3, from pictures stretched to 299x299 without antialiasing.

    Grey pictures are read as colours that are all the same. `thinner` is for tests.
    """
    if shape[2] not in (1, 3):
        raise UserError(f"config.task.features='inception' reads grey pictures or RGB, not {shape[2]} channels")
    params = read_inception(network, 'config.task.network', thinner)
    module, rows = InceptionV3(thinner), 32

    def of(pictures: Array) -> Array:
        if len(pictures) > rows:
            return jax.lax.map(lambda picture: of(picture[None])[0], pictures, batch_size=rows)
        size = (len(pictures), SIDE, SIDE, 3)
        coloured = jnp.broadcast_to(pictures, (*pictures.shape[:3], 3))
        stretched = jax.image.resize(coloured, size, 'linear', antialias=False)
        return module.apply({'params': params}, stretched * 2 - 1)  # pyright: ignore[reportReturnType]

    width = jax.eval_shape(of, jax.ShapeDtypeStruct((2, *shape), jnp.float32)).shape[1]
    resize = f'linear-{shape[0]}x{shape[1]}-to-{SIDE}x{SIDE}'
    signature = f'features:inception-v3-pool3|sha256:{digest(Variables(params, {}))}|values:{width}|resize:{resize}'
    return Space('inception', signature, width, of, rows, inception=True)


def classifier_space(shape: tuple[int, int, int], network: str, load: Callable | None) -> Space:
    """Returns the features of a trained classifier: what enters its last layer.

    Raises:
      UserError: where there is no such run, or it does not classify pictures of as many channels.
    """
    where = 'config.task.network'
    if not network or load is None:
        raise UserError(
            f"{where}: config.task.features='classifier' needs the folder of a classifier's run, for example one of "
            '`python -m launch.train --config=configs/fashion_features.py --workdir=runs/fashion_features`'
        )
    try:
        trained = load(network)
    except UserError as error:
        raise UserError(f'{where}={network!r}: {error}. Train it first, or name another run') from None
    wanted = trained.task.inputs.get('image')
    if wanted is None or len(wanted.shape) != 3:
        raise UserError(f'{where}={network!r}: its task reads {", ".join(trained.task.inputs)}, and no picture')
    if wanted.shape[2] != shape[2]:
        raise UserError(
            f'{where}={network!r} reads pictures of {wanted.shape[2]} channels, and these have {shape[2]}'
        )
    check_encode(trained.task, wanted.shape, f'{where}={network!r}')
    size, model = tuple(wanted.shape[:2]), trained.config.model.get('name', '')

    def of(pictures: Array) -> Array:
        return features_of(trained.task, trained.variables, resized(pictures, size))

    try:
        width = jax.eval_shape(of, jax.ShapeDtypeStruct((2, *shape), jnp.float32)).shape[1]
    except LookupError:
        raise UserError(f'{where}={network!r}: the model {model!r} reports no features (tap {POOLED!r})') from None
    data = trained.config.data.get('name') or trained.config.data.get('reader', '')
    signature = (
        f'features:{trained.config.task["name"]}/{model}-before-head|trained-on:{data}|step:{trained.step}'
        f'|sha256:{digest(trained.variables)}|values:{width}|resize:{resize_text(shape, size)}'
    )
    return Space('classifier', signature, width, of)


def check_encode(task: Any, shape: tuple[int, ...], where: str) -> None:
    """Raises a `UserError` where a classifier does something to a picture on the host that would be left out."""
    ramp = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    encoded = task.encode({'image': ramp})
    if set(encoded) != {'image'} or not np.array_equal(encoded['image'], ramp):
        raise UserError(f'{where}: it changes pictures before they reach the model; take another classifier')


def features_of(task: Any, variables: Variables, pictures: Array) -> Float[Array, 'batch width']:
    """Returns what enters the last layer while a task scores pictures; a `LookupError` where no tap reports it."""
    count = len(pictures)
    batch: Batch = {'image': pictures, 'index': jnp.arange(count), 'mask': jnp.ones(count)}
    context = Context(jax.random.key(0), jnp.int32(0), False)
    if task.score is None:
        raise LookupError(POOLED)
    claim = task.claim(batch, task.predict(variables, batch, context))  # a score needs some targets, whatever they are
    _, seen = task.score(variables, claim, context._replace(watch={}))
    pooled = [value for taps in seen.values() for path, value in taps.items() if path.split('/')[-1] == POOLED]
    if not pooled:
        raise LookupError(POOLED)
    return pooled[-1].reshape(count, -1).astype(jnp.float32)


def digest(variables: Variables) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of all arrays, their names and shapes."""
    sum_ = hashlib.sha256()
    for name, leaf in sorted(flatten_paths(variables._asdict()).items()):
        array = np.ascontiguousarray(leaf)
        sum_.update(f'{name} {array.dtype} {array.shape};'.encode() + array.tobytes())
    return sum_.hexdigest()[:16]


def features_of_rows(space: Space, rows: Sequence[Any], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Yields the features of the pictures of all rows in order, some at a time."""
    size, compute = min(len(rows), space.rows), jax.jit(space.of)
    for start in range(0, len(rows), size):
        numbers = range(start, min(start + size, len(rows)))
        pictures = np.zeros((size, *shape), np.float32)
        for place, row in enumerate(numbers):
            pictures[place] = fit_image(rows[row]['image'], shape)
        yield np.asarray(compute(pictures))[: len(numbers)]
