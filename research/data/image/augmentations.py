"""Host-side augmentation of training pictures: crop, shift, flip, RandAugment and random erasing.

Each augmentation is a pure function of a picture and a random generator, so the result depends only on
(seed, epoch, index). Pixels from outside the picture are 0.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image, ImageEnhance, ImageOps

from research.data.image.images import check_image, fit_image, shift_image

MAX_BOX_DRAWS = 10  # attempts to draw a box that fits
CROP_RATIOS = (3 / 4, 4 / 3)  # width over height of a crop, before it is resized (Szegedy et al. 2015, section 6)
ERASED_SHARES, ERASED_RATIOS = (0.02, 0.4), (0.3, 1 / 0.3)  # area; height over width (Zhong et al., table 1)
MAX_MAGNITUDE = 10.0  # of RandAugment
MAX_TRANSLATION = 150 / 331  # share of a side (AutoAugment: 150 pixels of 331)

Picture = Float[np.ndarray, 'height width channels']


class Augmentations(NamedTuple):
    """Augmentation settings, in order of application; 0 and False disable a step."""

    resized_crop: float = 0.0  # a crop of at least this share of the area, resized; ImageNet: 0.08
    shift: int = 0  # maximum shift in pixels, as a random crop with padding
    flip: bool = False  # mirror half of the pictures left to right
    operations: int = 0  # RandAugment operations per picture
    magnitude: float = 9.0  # of RandAugment, from 0 to 10
    erase: float = 0.0  # probability of covering a box with noise


def augment(
    image: Any, shape: tuple[int, int, int], settings: Augmentations, rng: np.random.Generator
) -> Picture:
    """Augments a decoded picture and fits it to `shape`: float32 in [0, 1].

    Raises:
      UserError: as of `fit_image`.
    """
    if settings.resized_crop:
        image = random_crop(check_image(image), rng, settings.resized_crop)
    image = fit_image(image, shape)
    if settings.shift:
        image = shift_image(image, rng, settings.shift)
    if settings.flip and rng.random() < 0.5:
        image = image[:, ::-1]
    if settings.operations:
        image = rand_augment(image, rng, settings.operations, settings.magnitude)
    if settings.erase and rng.random() < settings.erase:
        image = erase(image, rng)
    return image


def random_crop(
    image: Shaped[np.ndarray, 'height width *channels'], rng: np.random.Generator, smallest: float
) -> Shaped[np.ndarray, 'rows columns *channels']:
    """Random resized crop: area from `smallest` to all, aspect ratio from 3:4 to 4:3.

    Area and log ratio are uniform. If no drawn box fits, takes the largest centred box with an allowed ratio
    (Szegedy et al. 2015, arXiv:1409.4842, section 6, as in torchvision).
    """
    height, width = image.shape[:2]
    for _ in range(MAX_BOX_DRAWS):
        area = height * width * rng.uniform(smallest, 1)
        ratio = np.exp(rng.uniform(*np.log(CROP_RATIOS)))
        columns, rows = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            return image[top : top + rows, left : left + columns]
    rows, columns = min(height, round(width / CROP_RATIOS[0])), min(width, round(height * CROP_RATIOS[1]))
    return center(image, max(rows, 1), max(columns, 1))


def center(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """The centred box of `rows` by `columns` pixels."""
    top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
    return image[top : top + rows, left : left + columns]


def center_crop(image: np.ndarray, share: float) -> np.ndarray:
    """The centred square whose side is `share` of the shorter side; ImageNet's 224 of 256: 0.875."""
    side = max(1, round(share * min(image.shape[:2])))
    return center(image, side, side)


def erase(image: Picture, rng: np.random.Generator) -> Picture:
    """Random erasing: fills a box with uniform noise in [0, 1].

    Zhong et al. 2020 (arXiv:1708.04896), algorithm 1 with random values: area 2% to 40%, height over width 0.3
    to 3.33. The picture stays unchanged if ten drawn boxes are too large.
    """
    height, width, channels = image.shape
    for _ in range(MAX_BOX_DRAWS):
        area, ratio = height * width * rng.uniform(*ERASED_SHARES), rng.uniform(*ERASED_RATIOS)
        rows, columns = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
        if 0 < rows <= height and 0 < columns <= width:
            top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
            erased = image.copy()
            erased[top : top + rows, left : left + columns] = rng.random((rows, columns, channels), np.float32)
            return erased
    return image


def rand_augment(image: Picture, rng: np.random.Generator, operations: int, magnitude: float) -> Picture:
    """RandAugment: applies operations drawn with replacement, all of one magnitude.

    Cubuk et al. 2020 (arXiv:1909.13719), section 3. Half of the geometric and enhancement operations use the opposite
    sign.

    Args:
      image: in [0, 1]; the result is quantized to 256 values per channel.
      rng: draws two numbers per operation.
      operations: N of the paper.
      magnitude: M of the paper, 0 to 10.
    """
    levels = (image * 255).round().astype(np.uint8)
    picture = Image.fromarray(levels[..., 0] if levels.shape[2] == 1 else levels)
    for _ in range(operations):
        operation = OPERATIONS[tuple(OPERATIONS)[int(rng.integers(len(OPERATIONS)))]]
        sign = 1 if rng.random() < 0.5 else -1
        picture = operation(picture, magnitude / MAX_MAGNITUDE, sign)
    return np.atleast_3d(np.asarray(picture, np.float32) / 255)


def moved(matrix: tuple[float, ...], picture: Image.Image) -> Image.Image:
    """Affine transform: output (x, y) shows the input at (a x + b y + c, d x + e y + f)."""
    return picture.transform(picture.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=0)


def enhanced(enhancer: Callable[[Image.Image], Any]) -> Callable[[Image.Image, float, int], Image.Image]:
    """An operation that enhances by a factor of 0.1 to 1.9."""
    return lambda picture, strength, sign: enhancer(picture).enhance(1 + sign * 0.9 * strength)


# Operations of RandAugment with the ranges of AutoAugment (Cubuk et al. 2019, arXiv:1805.09501, table 6):
# (picture, strength from 0 to 1, sign) -> picture.
OPERATIONS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    'identity': lambda picture, strength, sign: picture,
    'auto_contrast': lambda picture, strength, sign: ImageOps.autocontrast(picture),
    'equalize': lambda picture, strength, sign: ImageOps.equalize(picture),
    'rotate': lambda picture, strength, sign: picture.rotate(
        sign * 30 * strength, Image.Resampling.BILINEAR, fillcolor=0
    ),
    'solarize': lambda picture, strength, sign: ImageOps.solarize(picture, round(256 * (1 - strength))),
    'color': enhanced(ImageEnhance.Color),
    'posterize': lambda picture, strength, sign: ImageOps.posterize(picture, 8 - round(4 * strength)),
    'contrast': enhanced(ImageEnhance.Contrast),
    'brightness': enhanced(ImageEnhance.Brightness),
    'sharpness': enhanced(ImageEnhance.Sharpness),
    'shear_x': lambda picture, strength, sign: moved((1, sign * 0.3 * strength, 0, 0, 1, 0), picture),
    'shear_y': lambda picture, strength, sign: moved((1, 0, 0, sign * 0.3 * strength, 1, 0), picture),
    'translate_x': lambda picture, strength, sign: moved(
        (1, 0, sign * MAX_TRANSLATION * strength * picture.width, 0, 1, 0), picture
    ),
    'translate_y': lambda picture, strength, sign: moved(
        (1, 0, 0, 0, 1, sign * MAX_TRANSLATION * strength * picture.height), picture
    ),
}
