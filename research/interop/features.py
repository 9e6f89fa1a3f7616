"""Feature spaces for comparing generated with real pictures.

    'pixels'      the downscaled pictures themselves
    'classifier'  the input of the last layer of an image classifier trained with this codebase
    'inception'   Inception-v3 from a user's file: the space of the Fréchet Inception distance

The signature of a space identifies it, including a hash of its weights, so metrics of different spaces are not mixed
up.
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
from research.errors import UserError, choose, name_of
from research.interop.inception import read_inception
from research.nn.inception import SIDE, InceptionV3
from research.ops.paths import flatten_paths

POOLED = 'pooled'  # the tap before the last layer of a classifier


class Space(NamedTuple):
    """A function from pictures to points."""

    name: str
    signature: str
    width: int
    of: Callable[[Float[Array, 'batch height width channels']], Float[Array, 'batch width']]
    rows: int = 1024  # pictures per batch
    inception: bool = False  # distances in it are FID and KID


def resized(
    pictures: Float[Array, 'batch height width channels'], size: tuple[int, int]
) -> Float[Array, 'batch height_out width_out channels']:
    """Resizes pictures with an antialiasing triangle filter, if needed."""
    if pictures.shape[1:3] == size:
        return pictures
    shape = (len(pictures), *size, pictures.shape[-1])
    return jax.image.resize(pictures, shape, 'linear', antialias=True)


def resize_text(shape: tuple[int, int, int], size: tuple[int, int]) -> str:
    """Describes `resized` in a signature."""
    height, width = shape[:2]
    return 'none' if (height, width) == size else f'linear-antialias-{height}x{width}-to-{size[0]}x{size[1]}'


def make_space(
    name: str, shape: tuple[int, int, int], pixels: int, network: str, load: Callable | None
) -> Space:
    """Builds the feature space called `name`.

    Args:
      name: 'pixels', 'classifier' or 'inception'.
      shape: height, width and channels of the pictures.
      pixels: maximum side of the downscaled pictures of 'pixels'.
      network: the folder of the classifier's run, or the file of Inception's weights.
      load: (folder) -> `inference.model.Trained`, passed in because it resolves names.

    Raises:
      UserError: for an unknown name, or a network that is missing or does not fit.
    """
    makers = {
        'pixels': lambda: pixel_space(shape, pixels),
        'classifier': lambda: classifier_space(shape, network, load),
        'inception': lambda: inception_space(shape, network),
    }
    return choose(name, makers, 'config.task.features')()


def pixel_space(shape: tuple[int, int, int], max_side: int) -> Space:
    """Pictures with at most `max_side` pixels along a side, flattened."""
    height, width, channels = shape
    size, largest = (height, width), max(height, width)
    if largest > max_side:
        size = (max(1, height * max_side // largest), max(1, width * max_side // largest))
    values = size[0] * size[1] * channels
    signature = f'features:pixels|values:{values}|range:0-1|resize:{resize_text(shape, size)}'
    return Space('pixels', signature, values, lambda pictures: resized(pictures, size).reshape(len(pictures), -1))


def inception_space(shape: tuple[int, int, int], network: str, thinner: int = 1) -> Space:
    """The 2,048 features of Inception-v3, from pictures stretched to 299x299 without antialiasing.

    Grey pictures are repeated over three channels. `thinner` is for tests.
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
    """The features of a trained classifier: the input of its last layer.

    Raises:
      UserError: if the run does not exist, or does not classify pictures with the same number of channels.
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
        raise UserError(f'{where}={network!r}: its task reads {", ".join(trained.task.inputs)}, not pictures')
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
    data = name_of(trained.config.data.get('name') or trained.config.data.get('reader', ''))
    signature = (
        f'features:{trained.config.task["name"]}/{model}-before-head|trained-on:{data}|step:{trained.step}'
        f'|sha256:{digest(trained.variables)}|values:{width}|resize:{resize_text(shape, size)}'
    )
    return Space('classifier', signature, width, of)


def check_encode(task: Any, shape: tuple[int, ...], where: str) -> None:
    """Raises UserError if a classifier transforms pictures on the host, which would be left out."""
    ramp = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    encoded = task.encode({'image': ramp})
    if set(encoded) != {'image'} or not np.array_equal(encoded['image'], ramp):
        raise UserError(f'{where}: it changes pictures before they reach the model; take another classifier')


def features_of(task: Any, variables: Variables, pictures: Array) -> Float[Array, 'batch width']:
    """The input of the last layer of a task; raises LookupError if no tap reports it."""
    count = len(pictures)
    batch: Batch = {'image': pictures, 'index': jnp.arange(count), 'mask': jnp.ones(count)}
    context = Context(jax.random.key(0), jnp.int32(0), False)
    if task.score is None:
        raise LookupError(POOLED)
    claim = task.claim(batch, task.predict(variables, batch, context))  # a score needs targets; any will do
    _, seen = task.score(variables, claim, context._replace(watch={}))
    pooled = [value for taps in seen.values() for path, value in taps.items() if path.split('/')[-1] == POOLED]
    if not pooled:
        raise LookupError(POOLED)
    return pooled[-1].reshape(count, -1).astype(jnp.float32)


def digest(variables: Variables) -> str:
    """First 16 hexadecimal digits of the SHA-256 of all arrays, their names and shapes."""
    sum_ = hashlib.sha256()
    for name, leaf in sorted(flatten_paths(variables._asdict()).items()):
        array = np.ascontiguousarray(leaf)
        sum_.update(f'{name} {array.dtype} {array.shape};'.encode() + array.tobytes())
    return sum_.hexdigest()[:16]


def features_of_rows(space: Space, rows: Sequence[Any], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Yields the features of the pictures of all rows, batch by batch."""
    size, compute = min(len(rows), space.rows), jax.jit(space.of)
    for start in range(0, len(rows), size):
        numbers = range(start, min(start + size, len(rows)))
        pictures = np.zeros((size, *shape), np.float32)
        for slot, row in enumerate(numbers):
            pictures[slot] = fit_image(rows[row]['image'], shape)
        yield np.asarray(compute(pictures))[: len(numbers)]
