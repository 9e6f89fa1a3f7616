"""Pictures: read from files, fitted to a shape, refused with a reason, moved, and drawn."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from research.data.image import images
from research.errors import UserError

RNG = np.random.default_rng(0)


def png(array, mode=None, format='PNG'):
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, format)
    return buffer.getvalue()


def test_reads_grey_colour_and_deep_pictures_from_files_and_bytes(tmp_path):
    grey, colour = (
        RNG.integers(256, size=(5, 7), dtype=np.uint8),
        RNG.integers(256, size=(5, 7, 3), dtype=np.uint8),
    )
    (tmp_path / 'grey.png').write_bytes(png(grey))
    np.testing.assert_array_equal(images.read_image(tmp_path / 'grey.png'), grey[..., None])
    np.testing.assert_array_equal(images.read_image(str(tmp_path / 'grey.png')), grey[..., None])
    np.testing.assert_array_equal(images.read_image(png(colour)), colour)
    deep = images.read_image(png(np.array([[0, 65535, 32768]], np.uint16)))
    np.testing.assert_array_equal(deep[..., 0], [[0, 255, 128]])
    real = images.read_image(png(np.float32([[0, 1, 0.5]]), format='TIFF'))
    np.testing.assert_array_equal(real[..., 0], [[0, 255, 128]])
    bits = images.read_image(png(np.array([[True, False]])))
    np.testing.assert_array_equal(bits[..., 0], [[255, 0]])


@pytest.mark.parametrize('values', [np.float32([[0, 1.5]]), np.float32([[0, np.nan]]), np.int32([[0, 70_000]])])
def test_grey_outside_of_what_its_kind_means_is_refused(values):
    with pytest.raises(UserError, match='the picture has values from .* but grey of this kind is 0 to'):
        images.read_image(png(values, format='TIFF'))


def test_transparency_becomes_white_and_a_photograph_stands_upright():
    clear = np.zeros((2, 2, 4), np.uint8)
    clear[0, 0] = (10, 20, 30, 255)
    read = images.read_image(png(clear))
    np.testing.assert_array_equal(read[0, 0], (10, 20, 30))
    assert (read[1] == 255).all()
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.zeros((4, 9), np.uint8)).save(buffer, 'JPEG', exif=exif)
    assert images.read_image(buffer.getvalue()).shape == (9, 4, 1)


@pytest.mark.parametrize(
    'content', [b'', b'no picture at all', png(RNG.integers(256, size=(30, 30), dtype=np.uint8))[:500]]
)
def test_what_is_no_picture_is_refused_with_its_name(tmp_path, content):
    file = tmp_path / 'broken.png'
    file.write_bytes(content)
    with pytest.raises(UserError, match='broken.png: cannot be read as a picture'):
        images.read_image(file)
    with pytest.raises(UserError, match='nowhere.png: cannot be read'):
        images.read_image(tmp_path / 'nowhere.png')


def test_a_huge_picture_is_refused_before_it_is_unpacked():
    with pytest.raises(UserError, match='1x9000 pixels.*1 to 8192'):
        images.read_image(png(np.zeros((1, 9000), np.uint8)))


def test_fitting_scales_grays_colours_and_resizes():
    grey, colour = np.uint8([[0, 51], [102, 255]]), RNG.integers(256, size=(2, 2, 3), dtype=np.uint8)
    np.testing.assert_allclose(images.fit_image(grey, (2, 2, 1))[..., 0], [[0, 0.2], [0.4, 1]], rtol=1e-6)
    np.testing.assert_allclose(
        images.fit_image(grey.tolist(), (2, 2, 3)), images.fit_image(grey[..., None], (2, 2, 3))
    )
    luma = colour @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(images.fit_image(colour, (2, 2, 1))[..., 0], luma, rtol=1e-5)
    large = RNG.random((32, 32, 1))
    small = images.fit_image(large, (8, 8, 1))
    assert small.shape == (8, 8, 1) and small.dtype == np.float32
    # Antialiased: each new pixel is near the mean of the 4x4 that it stands for, not one sample of them.
    np.testing.assert_allclose(small[..., 0], large.reshape(8, 4, 8, 4).mean((1, 3)), atol=0.2)
    assert images.fit_image(np.ones((3, 5)), (8, 8, 1)).min() == 1


def test_a_picture_that_fits_is_returned_as_it_is():
    image = RNG.random((8, 8, 1)).astype(np.float32)
    assert images.fit_image(image, (8, 8, 1)) is image


@pytest.mark.parametrize(('values', 'message'), [
    (np.zeros((8,)), r'each side 1 to 8192; got float64 \[8\]'),
    (np.zeros((8, 8, 2)), r'\[8, 8, 2\]'),
    (np.zeros((0, 8)), '0x8 pixels'),
    (np.zeros((1, 9000)), '1 to 8192'),
    (np.full((8, 8), 16.0), 'real numbers.*from 16.0 to 16.0'),
    (np.float32(np.full((8, 8, 1), 16.0)), 'from 16.0 to 16.0'),
    (np.full((8, 8), -1), 'from -1 to -1'),
    (np.full((8, 8), np.nan), 'from nan'),
    ('a word', 'must be numbers'),
    ([[0, 1], [2]], 'rows differ'),
    (np.full((8, 8), 1j), 'complex'),
])  # fmt: skip
def test_what_cannot_be_fitted_is_refused_with_its_shape_and_the_limit(values, message):
    with pytest.raises(UserError, match=message):
        images.fit_image(values, (8, 8, 1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_a_shift_moves_every_pixel_alike(seed, pixels):
    image = np.random.default_rng(1).random((6, 5, 2)).astype(np.float32) + 0.1
    moved = images.shift_image(image, np.random.default_rng(seed), pixels)
    found = [
        (down, right)
        for down in range(-pixels, pixels + 1)
        for right in range(-pixels, pixels + 1)
        if np.array_equal(moved, shifted(image, down, right))
    ]
    assert len(found) == 1
    np.testing.assert_array_equal(moved, images.shift_image(image, np.random.default_rng(seed), pixels))


@pytest.mark.parametrize('pixels', [7, 12])
def test_a_shift_may_be_larger_than_the_picture(pixels):
    moved = [images.shift_image(np.ones((6, 5, 1)), np.random.default_rng(seed), pixels) for seed in range(50)]
    assert any(each.sum() == 0 for each in moved) and any(each.sum() > 0 for each in moved)


def shifted(image, down, right):
    """Returns the picture moved, pixel by pixel."""
    out = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            if 0 <= y - down < image.shape[0] and 0 <= x - right < image.shape[1]:
                out[y, x] = image[y - down, x - right]
    return out


def test_a_grid_shows_each_picture_enlarged_with_frame_and_caption():
    pictures = [np.full((4, 4, 1), value, np.float32) for value in (0.0, 0.5, 1.0)]
    plain = images.grid(pictures, columns=2, scale=3)
    assert plain.dtype == np.uint8 and plain.shape == (2 * (12 + 6), 2 * (12 + 6), 3)
    assert (plain[3:15, 3:15] == 0).all() and (plain[3:15, 21:33] == 128).all()
    framed = images.grid(pictures, columns=3, scale=3, frames=[images.RED, None, None])
    assert tuple(framed[0, 0]) == images.RED and tuple(framed[0, 20]) == images.PAPER
    words = images.grid(pictures, columns=3, scale=8, captions=['a', 'a caption that is far too long', 'c'])
    assert words.shape[0] > images.grid(pictures, columns=3, scale=8).shape[0] and words.shape[1] == 3 * (
        32 + 6
    )
    assert (words[-14:] < 128).any()


def test_a_grid_of_nothing_is_a_small_white_picture():
    assert (images.grid([]) == 255).all()


def test_a_small_picture_is_enlarged_to_be_read():
    assert images.grid([np.zeros((8, 8, 1))]).shape[0] >= 64


@pytest.mark.parametrize(('mistakes', 'rows', 'framed', 'shown'), [
    (50, 200, 30, 60),  # half of the places are for what was right
    (50, 70, 40, 60),  # unless there is less of it
    (5, 20, 5, 20),
    (0, 3, 0, 3),
])  # fmt: skip
def test_a_grid_of_right_and_wrong_has_room_for_both(mistakes, rows, framed, shown):
    said = np.zeros(rows + 1, int)
    true, mask = (np.arange(rows + 1) < mistakes).astype(int), np.arange(rows + 1) < rows
    asked = []

    def picture(row):
        asked.append(int(row))
        return np.zeros((4, 4, 1))

    drawn = images.right_and_wrong(picture, said, true, mask, ('ant', 'bee'))
    columns = min(10, shown)
    height, width = drawn.shape[0] // -(-shown // columns), drawn.shape[1] // columns
    assert len(asked) == shown and rows not in asked
    corners = [tuple(drawn[number // columns * height, number % columns * width]) for number in range(shown)]
    assert corners == [images.RED] * framed + [images.PAPER] * (shown - framed)


def exif_picture(form, exif):
    buffer = io.BytesIO()
    Image.new('L', (6, 4), 9).save(buffer, form, exif=exif)
    return buffer.getvalue()


BYTES = st.lists(st.tuples(st.integers(6, 200), st.integers(0, 255)), max_size=8)


@pytest.mark.filterwarnings('ignore')
@settings(max_examples=150, deadline=None)
@given(st.sampled_from(['JPEG', 'PNG', 'WEBP']), BYTES)
def test_damaged_exif_data_never_stop_a_sound_picture(form, damage):
    exif = Image.Exif()
    exif[0x112], exif[0x10F], exif[0x8769] = 6, 'maker', {0x9003: '2020:01:01 00:00:00'}
    whole = exif.tobytes()
    assert images.read_image(exif_picture(form, whole)).shape[:2] == (6, 4)  # turned
    data = bytearray(whole)
    for place, value in damage:
        data[place % (len(data) - 6) + 6] = value
    picture = images.read_image(exif_picture(form, bytes(data)))
    assert picture.shape[:2] in ((4, 6), (6, 4)) and abs(int(picture.ravel()[0]) - 9) < 3


EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n'


@pytest.mark.parametrize('data', [EPS, b'%PDF-1.4\n', b'SIMPLE  =                    T', b'\0\0\x01\0\x01\0'])
def test_formats_that_are_not_promised_are_not_opened(data, tmp_path, monkeypatch):
    """An EPS file under another name would start Ghostscript."""
    monkeypatch.setattr('subprocess.check_call', lambda *arguments, **options: pytest.fail('a program was started'))
    (tmp_path / 'a.png').write_bytes(data)
    with pytest.raises(UserError, match='a.png: cannot be read as a picture'):
        images.read_image(tmp_path / 'a.png')
