"""Pictures on the host: decoding, fitting to a model's shape, shifting, and drawing in a grid."""

import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps

from research.data.formats import PILLOW
from research.errors import UserError

MAX_SIDE = 8192  # pixels
MAX_PREDICTIONS, GRID_WIDTH = 60, 960  # pictures in a grid of predictions; its approximate width in pixels
Color = tuple[int, int, int]
RED, GREY, INK, PAPER = (214, 39, 40), (200, 200, 200), (30, 30, 30), (255, 255, 255)


def read_image(file: str | os.PathLike | bytes) -> UInt8[np.ndarray, 'height width channels']:
    """Decodes a picture file, or its bytes, as grey (1 channel) or colour (3), upright.

    Transparent pixels become white; 16-bit and float grey values are scaled to 8 bits.

    Raises:
      UserError: if Pillow cannot decode it, or a side exceeds 8192 pixels.
    """
    name = 'the picture' if isinstance(file, bytes) else os.fspath(file)
    try:
        content = file if isinstance(file, bytes) else epath.Path(file).read_bytes()
        with Image.open(io.BytesIO(content), formats=PILLOW) as opened:
            check_size((opened.height, opened.width), name)
            picture = upright(opened)
            if picture.mode.startswith('I') or picture.mode == 'F':
                return scaled(np.asarray(picture, np.float64), 1.0 if picture.mode == 'F' else 65535.0, name)
            if 'A' in picture.getbands() or 'transparency' in picture.info:
                picture = picture.convert('RGBA')
                ground = Image.new('RGBA', picture.size, 'white')
                picture = Image.alpha_composite(ground, picture).convert('RGB')
            picture = picture.convert('L' if picture.mode in ('1', 'L') else 'RGB')
    except UserError:
        raise
    except Exception as error:  # Pillow's decoders raise all kinds of errors on damaged files
        reason = re.sub(r' <_io\.BytesIO[^>]*>', '', str(error)) or type(error).__name__
        raise UserError(
            f'{name}: cannot be read as a picture ({reason}); give a PNG, JPEG, WebP, GIF, BMP, TIFF or PPM'
        ) from None
    return np.atleast_3d(np.asarray(picture))


def upright(opened: Image.Image) -> Image.Image:
    """Rotates a picture by its EXIF orientation; unreadable EXIF data are ignored."""
    opened.load()  # decode first, so that only EXIF errors are caught below
    try:
        return ImageOps.exif_transpose(opened)
    except Exception:  # a damaged field raises all kinds of errors in Pillow
        return opened


def scaled(values: np.ndarray, top: float, name: str) -> UInt8[np.ndarray, 'height width 1']:
    """Scales grey values from [0, top] to 8 bits; raises UserError for values outside."""
    if not (values.min() >= 0 and values.max() <= top):  # also true for NaN
        raise UserError(
            f'{name} has values from {values.min():g} to {values.max():g}, but grey of this kind is 0 to {top:g}: '
            'scale it, or save it with 8 bits'
        )
    return (values / top * 255).round().astype(np.uint8)[..., None]


def check_size(size: tuple[int, int], name: str) -> None:
    """Raises UserError for a picture with an empty side or one above the limit."""
    if min(size) < 1 or max(size) > MAX_SIDE:
        raise UserError(f'{name} is {size[0]}x{size[1]} pixels (height x width); each side must be 1 to {MAX_SIDE}')


def check_image(values: Any) -> np.ndarray:
    """Validates a picture array: integers from 0 to 255, or floats from 0 to 1.

    Args:
      values: [height, width] or [height, width, 1 or 3].

    Raises:
      UserError: for an invalid shape, or values out of range.
    """
    try:
        image = np.asarray(values)
    except ValueError:
        raise UserError('an image must be numbers [height, width] or [height, width, channels]; rows differ') from None
    channels_fit = image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (1, 3))
    if image.dtype.kind not in 'biuf' or not channels_fit:
        raise UserError(
            'an image must be numbers of shape [height, width], [height, width, 1] or [height, width, 3], '
            f'each side 1 to {MAX_SIDE}; got {image.dtype} {list(image.shape)}'
        )
    check_size(image.shape[:2], 'the image')
    top = 255 if image.dtype.kind in 'iu' else 1
    if not (image.min() >= 0 and image.max() <= top):
        raise UserError(
            f'image values must be integers from 0 to 255 or real numbers from 0 to 1; got {image.dtype} '
            f'from {image.min()} to {image.max()}'
        )
    return image


def fit_image(values: Any, shape: tuple[int, int, int]) -> Float[np.ndarray, 'height width channels']:
    """Fits a picture to `shape`: float32 in [0, 1], converted to grey or colour and resized if needed.

    Integers range from 0 to 255, floats from 0 to 1. Grey is the ITU-R 601 luma. Resizing stretches the picture with an
    antialiasing triangle filter.

    Args:
      values: [height, width] or [height, width, 1 or 3].
      shape: height, width and channels (1 or 3) wanted.

    Raises:
      UserError: as of `check_image`.
    """
    image = check_image(values)
    if image.dtype == np.float32 and image.shape == shape:
        return image
    top, image = 255 if image.dtype.kind in 'iu' else 1, np.atleast_3d(image)
    height, width, channels = shape

    def real(values: np.ndarray) -> np.ndarray:
        values = values.astype(np.float32, order='C')
        values /= top  # in place: pictures can be large
        return values

    if channels == 1 and image.shape[2] == 3:
        planes = [(real(image) @ np.array([[0.299], [0.587], [0.114]], np.float32))[..., 0]]
    elif channels == 3 and image.shape[2] == 1:
        planes = [real(image[..., 0])] * 3
    else:
        planes = (real(image[..., channel]) for channel in range(channels))  # one at a time
    if image.shape[:2] != (height, width):
        size = (width, height)
        planes = (np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)) for plane in planes)
    image = np.stack(list(planes), axis=2)
    return np.clip(image, 0, 1)


def shift_image(
    image: Float[np.ndarray, 'height width channels'], rng: np.random.Generator, pixels: int
) -> Float[np.ndarray, 'height width channels']:
    """Shifts a picture by up to `pixels` in each direction, uniformly, and fills with 0."""
    down, right = (int(offset) - pixels for offset in rng.integers(2 * pixels + 1, size=2))
    height, width, _ = image.shape
    down, right = int(np.clip(down, -height, height)), int(np.clip(right, -width, width))
    moved = np.zeros_like(image)
    new_rows, new_columns = (slice(max(by, 0), size + min(by, 0)) for by, size in ((down, height), (right, width)))
    rows, columns = (slice(max(-by, 0), size - max(by, 0)) for by, size in ((down, height), (right, width)))
    moved[new_rows, new_columns] = image[rows, columns]
    return moved


def to_bytes(image: np.ndarray) -> UInt8[np.ndarray, 'height width 3']:
    """Converts a picture (float in [0, 1] or uint8, 1 or 3 channels) to uint8 colour."""
    image = np.atleast_3d(image)
    if image.dtype != np.uint8:
        image = (np.clip(np.nan_to_num(image.astype(np.float32)), 0, 1) * 255).round().astype(np.uint8)
    return np.broadcast_to(image, (*image.shape[:2], 3))


def grid(
    images: Sequence[np.ndarray] | np.ndarray,
    columns: int = 10,
    scale: int = 0,
    captions: Sequence[str] = (),
    frames: Sequence[Color | None] = (),
) -> UInt8[np.ndarray, 'height width 3']:
    """Draws pictures of one shape row by row on white, each pixel as a square of `scale` pixels.

    Args:
      images: float in [0, 1] or uint8, each [height, width, 1 or 3].
      columns: number of pictures per row.
      scale: 0 scales pictures to a height of about 64 pixels.
      captions: a short line under each picture, truncated if too wide.
      frames: the colour of the frame around each picture, or None.
    """
    if not len(images):
        return np.full((16, 16, 3), 255, np.uint8)
    pictures = [to_bytes(image) for image in images]
    height, width, _ = pictures[0].shape
    scale = scale or max(1, round(64 / height))
    columns = min(columns, len(pictures))
    gap, text = 3, 16 if captions else 0
    cell = (height * scale + 2 * gap + text, width * scale + 2 * gap)
    rows = math.ceil(len(pictures) / columns)
    canvas = Image.new('RGB', (columns * cell[1], rows * cell[0]), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(12)
    for number, picture in enumerate(pictures):
        top, left = number // columns * cell[0], number % columns * cell[1]
        large = picture.repeat(scale, axis=0).repeat(scale, axis=1)
        if number < len(frames) and frames[number]:
            corner = (left + cell[1] - 1, top + cell[0] - text - 1)
            draw.rectangle(((left, top), corner), outline=frames[number], width=gap)
        canvas.paste(Image.fromarray(large), (left + gap, top + gap))
        if number < len(captions):
            caption = captions[number]
            while len(caption) > 1 and draw.textlength(caption, font) > cell[1]:
                caption = caption[:-1]
            middle = (left + cell[1] / 2, top + cell[0] - text / 2)
            draw.text(middle, caption, fill=INK, font=font, anchor='mm')
    return np.asarray(canvas)


def render_classes(
    classes: Sequence[str],
    batch: Mapping[str, Any],
    outputs: Mapping[str, Any],
    picture_of: Callable[[Mapping[str, Any]], Callable[[int], np.ndarray]] | None = None,
) -> dict[str, np.ndarray]:
    """`Task.render` of a classifier: examples with predicted classes, see `right_and_wrong`.

    Args:
      classes: names of the classes.
      batch: encoded rows, optionally with 'label' and 'mask'.
      outputs: of `predict`, with 'logits'.
      picture_of: (batch) -> (row) -> its picture; by default the field 'image'.
    """
    predicted = np.asarray(outputs['logits']).argmax(-1)
    true = np.asarray(batch.get('label', predicted))
    mask = np.asarray(batch.get('mask', np.ones(len(predicted))))
    picture = picture_of(batch) if picture_of else np.asarray(batch['image']).__getitem__
    return {'right_and_wrong': right_and_wrong(picture, predicted, true, mask, classes)}


def right_and_wrong(
    picture: Callable[[int], np.ndarray],
    predicted: np.ndarray,
    true: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
) -> UInt8[np.ndarray, 'height width 3']:
    """Draws predictions: wrong ones first in a red frame, at most half of the grid, then correct ones.

    Args:
      picture: (row) -> its picture.
      predicted, true: the class of each row. mask: 1 for rows, 0 for padding.
    """
    rows = np.flatnonzero(mask > 0)
    right, wrong = rows[predicted[rows] == true[rows]], rows[predicted[rows] != true[rows]]
    shown = wrong[: max(MAX_PREDICTIONS // 2, MAX_PREDICTIONS - len(right))]
    shown = np.concatenate([shown, right[: MAX_PREDICTIONS - len(shown)]])
    mistaken = set(wrong.tolist())
    names = {row: classes[int(predicted[row])] for row in shown.tolist()}
    captions = [
        f'{names[row]}, is {classes[int(true[row])]}' if row in mistaken else names[row] for row in shown.tolist()
    ]
    frames = [RED if row in mistaken else None for row in shown]
    pictures = [picture(row) for row in shown]
    height, width = pictures[0].shape[:2] if pictures else (1, 1)
    columns = min(10, max(1, GRID_WIDTH * height // (64 * width)))  # after `grid` enlarges the pictures
    return grid(pictures, columns, captions=captions, frames=frames)
