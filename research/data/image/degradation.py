"""What spoils a picture: noise, fewer pixels, or JPEG compression, made on the host from a clean picture."""

import fractions
import io
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from research.data.image.luma import Range
from research.data.image.resize import resize
from research.errors import UserError

Grey = UInt8[np.ndarray, 'height width']
TURNS = 8  # rotations by quarter turns, mirrored or not
STRENGTHS = {'noise': (0, 255), 'bicubic': (2, 4), 'jpeg': (1, 95)}  # what is possible
BLOCK = 8  # side of the squares that JPEG compresses, in pixels


class Degradation(NamedTuple):
    """A way to spoil a picture. `strength` is sigma from 0 to 255, the factor, or the quality."""

    name: Literal['noise', 'bicubic', 'jpeg']
    strength: float
    blind: tuple[float, ...] = ()  # (low, high) of the strength in training; (): always `strength`

    @property
    def scale(self) -> int:
        """How many times larger the restored picture is."""
        return int(self.strength) if self.name == 'bicubic' else 1

    @property
    def levels(self) -> Range:
        """The range of the luma of colour pictures."""
        return 'studio' if self.name == 'bicubic' else 'full'

    @property
    def rounds(self) -> bool:
        """Whether restored pictures are compared after rounding; noise is compared unrounded."""
        return self.name != 'noise'

    @property
    def border(self) -> int:
        """Pixels at each side that quality metrics leave out."""
        return self.scale if self.name == 'bicubic' else 0

    @property
    def context(self) -> int:
        """Clean pixels around a patch that its degraded version depends on, a multiple of the scale."""
        return {'noise': 0, 'bicubic': 3 * self.scale, 'jpeg': 2 * BLOCK}[self.name]

    @property
    def field(self) -> str:
        """The optional field of a request that states the strength; '' for a factor."""
        return {'noise': 'sigma', 'bicubic': '', 'jpeg': 'quality'}[self.name]

    def stated(self, request: Mapping[str, Any]) -> float:
        """The strength that a request states, by default that of evaluation; raises UserError for an invalid one."""
        value = request.get(self.field, self.strength)
        low, high = STRENGTHS[self.name]
        try:
            strength = float(value)  # a cell of a table is a text
        except (TypeError, ValueError):
            strength = float('nan')
        if not low <= strength <= high:
            raise UserError(f'{self.field} must be a number from {low} to {high}, got {value!r}')
        return strength

    def level(self, strength: float) -> np.float32:
        """The strength as a model reads it: from 0 (nothing) to about 1."""
        return np.float32({'noise': strength / 255, 'bicubic': 0, 'jpeg': 1 - strength / 100}[self.name])


def degrade(
    degradation: Degradation, clean: Grey, strength: float, rng: Any
) -> Float[np.ndarray, 'low_height low_width']:
    """The degraded version of a clean picture, float32, 0 to 1 for black to white; noise may leave that range.

    Args:
      degradation: what to do.
      clean: its sides are multiples of the scale.
      strength: sigma, or the quality; a factor is that of `degradation`.
      rng: a `numpy.random.Generator`, of the noise.
    """
    if degradation.name == 'noise':
        noise = rng.standard_normal(clean.shape, np.float32)
        return clean.astype(np.float32) / 255 + noise * np.float32(strength / 255)
    if degradation.name == 'jpeg':
        return compressed(clean, round(strength)).astype(np.float32) / 255
    return resize(clean, fractions.Fraction(1, degradation.scale)).astype(np.float32) / 255


def compressed(clean: Grey, quality: int) -> Grey:
    """A grey picture after JPEG compression by Pillow; its quality is 1 to 95."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(clean)).save(buffer, 'JPEG', quality=quality)
    return np.asarray(Image.open(buffer))


def whole(clean: Grey, scale: int) -> Grey:
    """Crops a picture at the right and below to multiples of the scale."""
    height, width = (size - size % scale for size in clean.shape)
    return clean[:height, :width]


def random_patch(
    degradation: Degradation, clean: Grey, side: int, rng: Any
) -> tuple[Float[np.ndarray, 'low low'], Grey, float]:
    """A patch of a clean picture, turned and mirrored at random, with its degraded version and the strength.

    A patch is degraded together with its surroundings, so that its borders look as inside a picture. The grid of JPEG
    squares is at any position.

    Args:
      degradation: what to do.
      clean: a picture of any size; a small one is mirrored at its borders.
      side: of the clean patch, a multiple of the scale.
      rng: a `numpy.random.Generator`.
    """
    context, scale = degradation.context, degradation.scale
    large = side + 2 * context
    clean = np.pad(clean, [(0, max(0, large - size)) for size in clean.shape], 'symmetric')
    top, left = (int(rng.integers(size - large + 1)) for size in clean.shape)
    turn = int(rng.integers(TURNS))
    clean = np.rot90(clean[top : top + large, left : left + large], turn % 4)
    clean = clean[:, ::-1] if turn >= 4 else clean
    low, high = degradation.blind or (degradation.strength, degradation.strength)
    strength = float(rng.uniform(low, high)) if high > low else low
    spoiled = degrade(degradation, clean, strength, rng)
    down, right = rng.integers(BLOCK, size=2) + BLOCK if degradation.name == 'jpeg' else (context, context)
    low_side, low_down, low_right = side // scale, down // scale, right // scale
    spoiled = spoiled[low_down : low_down + low_side, low_right : low_right + low_side]
    return spoiled, clean[down : down + side, right : right + side], strength


def central_patch(image: np.ndarray, side: int) -> np.ndarray:
    """The square of `side` pixels in the middle of a picture; a small one is mirrored at its borders."""
    image = np.pad(image, [(0, max(0, side - size)) for size in image.shape], 'symmetric')
    top, left = ((size - side) // 2 for size in image.shape)
    return image[top : top + side, left : left + side]
