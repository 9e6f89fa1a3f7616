"""Inception-v3 from a file, against the package pytorch-fid (tests/interop/make_inception_fixture.py)."""

import pathlib

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research.errors import UserError
from research.interop.features import inception_space, make_space
from research.interop.inception import read_inception

FOLDER = pathlib.Path(__file__).parent / 'inception'
FILE = FOLDER / 'inception.safetensors'
THINNER = 16  # widths in the fixture


def test_features_equal_the_references():
    """Small pictures, which are stretched, and larger ones, which are shrunk without antialiasing."""
    with np.load(FOLDER / 'features.npz') as stored:
        for name, shape in (('small', (28, 28, 3)), ('large', (320, 310, 3))):
            space = inception_space(shape, str(FILE), THINNER)
            pictures = np.random.default_rng(0).random((2, *shape), np.float32)
            np.testing.assert_allclose(jax.jit(space.of)(pictures), stored[name], rtol=1e-4, atol=1e-4)
    assert 'features:inception-v3-pool3|sha256:' in space.signature
    assert space.signature.endswith('|values:128|resize:linear-320x310-to-299x299')


def test_grey_pictures_are_colours_that_are_all_the_same():
    grey = np.random.default_rng(1).random((2, 28, 28, 1), np.float32)
    colours = np.repeat(grey, 3, axis=-1)
    found, same = (jax.jit(inception_space(each.shape[1:], str(FILE), THINNER).of)(each) for each in (grey, colours))
    np.testing.assert_array_equal(found, same)


def test_many_pictures_are_read_some_at_a_time():
    space = inception_space((8, 8, 1), str(FILE), THINNER)
    pictures = np.random.default_rng(2).random((space.rows + 2, 8, 8, 1), np.float32)
    of = jax.jit(space.of)
    parts = [of(pictures[:4]), of(pictures[-4:])]
    found = of(pictures)
    np.testing.assert_allclose(found[:4], parts[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[-4:], parts[1], rtol=1e-4, atol=1e-5)


def changed(tmp_path, change):
    tensors = load_file(FILE)
    change(tensors)
    save_file(tensors, tmp_path / 'other.safetensors')
    return str(tmp_path / 'other.safetensors')


@pytest.mark.parametrize(('change', 'message'), [
    (lambda t: t.update({'fc.weight': np.zeros((1000, 1), np.float16)}), "'fc.weight' has 1,000 rows"),
    (lambda t: t.pop('Mixed_6b.branch7x7_2.bn.bias'), r"'Mixed_6b.branch7x7_2.bn.bias' is missing"),
    (lambda t: t.update({'Mixed_5b.branch1x1.conv.weight': np.zeros((4, 12, 3, 3), np.float16)}),
     r'shape \[4, 12, 3, 3\], expected \[4, 12, 1, 1\]'),
])  # fmt: skip
def test_other_weights_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        read_inception(changed(tmp_path, change), 'config.task.network', THINNER)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    broken = tmp_path / 'pt_inception-2015-12-05-6726825d.pth'
    broken.write_bytes(b'PK' + bytes(100))
    with pytest.raises(UserError, match='not a safetensors file.*safetensors.torch.save_file'):
        read_inception(str(broken), 'config.task.network')
    with pytest.raises(UserError, match='there is no such file'):
        make_space('inception', (28, 28, 1), 0, '', None)
    with pytest.raises(UserError, match='not 2 channels'):
        make_space('inception', (28, 28, 2), 0, str(FILE), None)
    with pytest.raises(UserError, match=r'shape \[2, 3, 3, 3\], expected \[32, 3, 3, 3\]'):  # no thinner network
        make_space('inception', (28, 28, 1), 0, str(FILE), None)
