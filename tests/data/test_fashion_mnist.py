"""Fashion-MNIST as its authors publish it."""

import hashlib

import numpy as np
import pytest

from research.data.dataset import numbered, open_dataset
from research.data.sets import fashion_mnist
from research.errors import UserError


@pytest.mark.data
def test_pixels_labels_and_splits(data):
    images = numbered(fashion_mnist.open(str(data / 'fashion_mnist'), examples=1000))
    train, validation, test = (images.source(split) for split in images.splits)
    assert (len(train), len(validation), len(test)) == (1000, 5000, 10_000)
    assert [row['label'] for row in train[:8]] == [9, 0, 0, 3, 0, 2, 7, 2]  # as in every copy of the set
    assert (
        images.classes[9] == 'ankle boot'
        and np.bincount([row['label'] for row in test]).tolist() == [1000] * 10
    )
    first = train[0]['image']
    assert first.shape == images.shape and first.dtype == np.float32 and 0 <= first.min() < first.max() <= 1
    pixels = np.stack([row['image'] for row in test])
    # The checksum of the authors' own file, without its 16 bytes of head.
    head = bytes.fromhex('00000803000027100000001c0000001c')
    content = head + (pixels * 255).round().astype(np.uint8).tobytes()
    assert hashlib.md5(content).hexdigest() == '8181f5470baa50b63fa0f6fddb340f0a'


@pytest.mark.data
def test_the_validation_split_does_not_move(data):
    few, all_rows = (fashion_mnist.open(str(data / 'fashion_mnist'), examples) for examples in (10, 0))
    assert len(all_rows.source('train')) == 55_000
    np.testing.assert_array_equal(
        few.source('validation')[0]['image'], all_rows.source('validation')[0]['image']
    )
    assert [row['label'] for row in few.source('train')] == [
        row['label'] for row in all_rows.source('train')[:10]
    ]


def test_what_is_wrong_is_named(tmp_path):
    with pytest.raises(UserError, match='config.data.examples must be at least zero and at most 55,000, got 60000'):
        open_dataset({'name': 'fashion_mnist', 'examples': 60_000})
    with pytest.raises(UserError, match='images-idx3-ubyte'):
        fashion_mnist.open(str(tmp_path)).source('train')
    with pytest.raises(UserError, match="did you mean 'train'"):
        fashion_mnist.open(str(tmp_path)).source('trian')
