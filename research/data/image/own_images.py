"""Pictures that users bring: in a folder for each class, in IDX files, or named by the column of a table."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.data.image.images import Images, check_image
from research.data.readers import has_reader, sources, with_classes
from research.data.readers.rows import SPLITS, Rows
from research.errors import UserError

LARGE = 256  # pixels along a side; above, the shape must be said: nobody trains on 4000x3000 by accident


def own_images(
    settings: Mapping[str, Any], classes: Sequence[str] = (), shape: Sequence[int] = ()
) -> Images:
    """Returns the pictures of `config.data`, read one by one; a row is {'image': uint8, 'label': int}.

    Args:
      settings: those of a reader, and `shape`: (height, width, channels) that the model sees; () for that of
        the first training picture.
      classes: their names, as stored by an earlier run; () reads them from the training split.
      shape: likewise.

    Raises:
      UserError: for settings or a shape that cannot be.
    """
    if not has_reader(settings):
        raise UserError(
            "config.data.name is missing: name a data set, such as 'digits', or read your own by "
            "config.data.reader, such as 'image_folder'"
        )
    options = dict(settings)
    wanted = checked_shape(options.pop('shape', ()))
    data = sources(options, ('image', 'label'))
    names = tuple(classes) or data.classes()

    def source(split: str) -> Rows:
        return with_classes(data.source(split), names)

    fitted = tuple(shape) or wanted or shape_of(source('train'))
    return Images(source, names, fitted, SPLITS, f'pictures of {data.about}')


def checked_shape(shape: Sequence[Any]) -> tuple[int, ...]:
    """Returns `config.data.shape` as whole numbers; a `UserError` where it is no shape of a picture."""
    try:
        sizes = tuple(int(size) for size in shape)
    except ValueError:
        sizes = (0,)
    if sizes and (len(sizes) != 3 or min(sizes) < 1 or sizes[2] not in (1, 3)):
        raise UserError(
            f'config.data.shape={shape!r}: write height,width,channels, such as 32,32,3 (channels 1 or 3)'
        )
    return sizes


def shape_of(rows: Rows) -> tuple[int, int, int]:
    """Returns the shape of the first picture; a `UserError` where it is too large to be meant."""
    height, width, channels = np.atleast_3d(check_image(rows[0]['image'])).shape
    if max(height, width) > LARGE:
        raise UserError(
            f'{rows.where(0)} is {height}x{width} pixels: say what the model sees, such as '
            f'--config.data.shape=64,64,{channels}'
        )
    return height, width, channels
