"""The data sets of labelled pictures by name; one more is one more line."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from research.data.image.images import Images
from research.data.image.own_images import own_images
from research.data.readers import has_reader, without_reader
from research.data.readers.rows import Rows, select
from research.data.sets.digits import digits
from research.data.sets.fashion_mnist import fashion_mnist
from research.errors import choose, unpack


def image_set(settings: Mapping[str, Any], classes: Sequence[str] = (), shape: Sequence[int] = ()) -> Images:
    """Returns the data set that `config.data` names, or the user's own that its reader reads.

    Args:
      settings: 'name' and its other settings, or those of a reader (`research.data.readers`).
      classes: names that an earlier run stored, for a user's own set; () reads them from the training split.
      shape: likewise.

    Raises:
      UserError: for an unknown name or setting.
    """
    if has_reader(settings) or not settings.get('name'):
        return own_images(settings, classes, shape)
    readers = {'digits': digits, 'fashion_mnist': fashion_mnist}
    options = {key: value for key, value in without_reader(settings).items() if value or key != 'shape'}
    return unpack(choose(settings['name'], readers, 'config.data.name'), options, 'data')


def deterministic_shuffle(
    settings: Mapping[str, Any], source: Callable[[str], Rows]
) -> Callable[[str], Sequence[dict]]:
    """Returns a source whose rows of a user's files are mixed, always alike.

    Files stand class by class, which matters to who looks at the first rows of a split alone.

    Args:
      settings: of `image_set`.
      source: (split) -> rows of its data set.
    """
    if not has_reader(settings):
        return source

    def mixed(split: str) -> Rows:
        rows = source(split)
        return select(rows, np.random.default_rng(0).permutation(len(rows)))

    return mixed
