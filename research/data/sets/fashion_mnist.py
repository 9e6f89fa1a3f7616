"""Fashion-MNIST: 70,000 photographs of clothes, 28x28 pixels, in the IDX files that its authors publish.

Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", 2017 (arXiv:1708.07747). Intensities 0 to 255 become float32 in [0, 1].
"""

import functools

import numpy as np

from research.data.image.images import Images
from research.data.readers.archives import data_root, find
from research.data.readers.idx import read_array
from research.errors import UserError, choose

CLASSES = (
    'T-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot',
)  # fmt: skip
TRAIN, VALIDATION = 55_000, 5_000  # rows of the training file, in its order


def fashion_mnist(folder: str = '', examples: int = 0) -> Images:
    """Returns Fashion-MNIST; a row is {'image': float32 [28, 28, 1] in [0, 1], 'label': int}.

    The validation split is the last 5,000 rows of the training file, whatever `examples` says.

    Args:
      folder: where the four files lie; '' for $TESSERA_DATA/fashion_mnist.
      examples: train on so many of the first rows alone; 0 for all 55,000 that are left.

    Raises:
      UserError: for an impossible number; files that are missing or broken are named when they are read.
    """
    if not 0 <= examples <= TRAIN:
        raise UserError(f'config.data.examples must be 0 (all) to {TRAIN:,}, got {examples}')
    place = folder or f'{data_root()}/fashion_mnist'

    @functools.cache
    def arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
        files = [f'{place}/{name}-{part}-ubyte.gz' for part in ('images-idx3', 'labels-idx1')]
        images, labels = (read_array(find((file,), 'config.data.folder')[0]) for file in files)
        return images[..., None].astype(np.float32) / 255, labels

    @functools.cache
    def source(split: str) -> list[dict]:
        ranges = {
            'train': ('train', 0, examples or TRAIN),
            'validation': ('train', TRAIN, TRAIN + VALIDATION),
            'test': ('t10k', 0, None),
        }
        name, start, stop = choose(split, ranges, 'split')
        images, labels = (values[start:stop] for values in arrays(name))
        return [{'image': image, 'label': int(label)} for image, label in zip(images, labels, strict=True)]

    splits = ('train', 'validation', 'test')
    return Images(source, CLASSES, (28, 28, 1), splits, 'one piece of clothing, light on black')
