"""Fashion-MNIST: 70,000 photographs of clothes, 28x28 pixels, in the IDX files that its authors publish.

Source: H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", 2017 (arXiv:1708.07747). Licence: MIT. Splits: the official test; the last 5,000 rows of the
training file are the validation split. Oddities: intensities 0 to 255 become float32 in [0, 1].
"""

import functools
from typing import Annotated

import numpy as np

from research.data.dataset import DataSet
from research.data.fetch import folder_of
from research.data.readers.archives import find
from research.data.readers.idx import read_array
from research.data.readers.rows import Rows, in_memory
from research.data.source import Source, github_files
from research.errors import Range, choose

SOURCE = Source(
    'fashion_mnist',
    'MIT',
    'https://github.com/zalandoresearch/fashion-mnist',
    github_files(
        'zalandoresearch/fashion-mnist', 'b2617bb6d3ffa2e429640350f613e3291e10b141',
        ('data/fashion/train-images-idx3-ubyte.gz', 26_421_880,
         '3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84'),
        ('data/fashion/train-labels-idx1-ubyte.gz', 29_515,
         'a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845'),
        ('data/fashion/t10k-images-idx3-ubyte.gz', 4_422_102,
         '346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073'),
        ('data/fashion/t10k-labels-idx1-ubyte.gz', 5_148,
         '67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5'),
    ),
)  # fmt: skip
CLASSES = (
    'T-shirt', 'trouser', 'pullover', 'dress', 'coat', 'sandal', 'shirt', 'sneaker', 'bag', 'ankle boot',
)  # fmt: skip
TRAIN, VALIDATION = 55_000, 5_000  # rows of the training file, in its order


def open(folder: str = '', examples: Annotated[int, Range(0, TRAIN)] = 0) -> DataSet:
    """Opens the set; a row is {'image': float32 [28, 28, 1] in [0, 1], 'label': of `CLASSES`}.

    Args:
      folder: of the four IDX files.
      examples: number of leading training rows to use; 0 for all 55,000. The validation split stays the same.

    Raises:
      UserError: missing or broken files are named when they are read.
    """

    @functools.cache
    def arrays(name: str) -> tuple[np.ndarray, np.ndarray]:
        root = folder_of(SOURCE, folder)
        files = [f'{root}/{name}-{part}-ubyte.gz' for part in ('images-idx3', 'labels-idx1')]
        images, labels = (read_array(find((file,), 'config.data.folder')[0]) for file in files)
        return images[..., None].astype(np.float32) / 255, labels

    @functools.cache
    def source(split: str) -> Rows:
        ranges = {
            'train': ('train', 0, examples or TRAIN),
            'validation': ('train', TRAIN, TRAIN + VALIDATION),
            'test': ('t10k', 0, None),
        }
        name, start, stop = choose(split, ranges, 'split')
        images, labels = (values[start:stop] for values in arrays(name))
        rows = [{'image': image, 'label': CLASSES[label]} for image, label in zip(images, labels, strict=True)]
        return in_memory(rows, f'{name} images of Fashion-MNIST')

    fields = ('image', 'label')
    about = 'one piece of clothing, light on black'
    return DataSet(source, about, fields=fields, class_names=CLASSES, image_shape=(28, 28, 1))
