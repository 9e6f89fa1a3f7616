"""The host side of image restoration: rows and requests as patches and tiles, and tiles as the restored picture.

A row is {'target': a clean grey picture, 'key': (split, number)}, which is degraded here; a request is {'image': a
degraded picture}, with an optional 'sigma' or 'quality'.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from research.data.image import tiles
from research.data.image.degradation import Degradation, central_patch, degrade, random_patch, whole
from research.data.image.images import check_image, read_image
from research.data.image.luma import from_planes, luma, to_planes
from research.data.image.resize import resize
from research.data.image.tiles import Tiling
from research.data.outputs import Picture
from research.errors import UserError
from research.ops.image_quality import psnr, ssim

ERROR_SCALE = 5  # brightness of the picture of errors
Plane = Float[np.ndarray, 'height width']
Recompose = Callable[[Sequence[Plane]], Float[np.ndarray, 'height_out width_out channels']]


def to_uint8(values: Any) -> UInt8[np.ndarray, 'height width channels']:
    """A valid picture array as uint8; raises UserError for others."""
    image = np.atleast_3d(check_image(values))
    return image.astype(np.uint8) if image.dtype.kind in 'iu' else np.round(image * 255).astype(np.uint8)


def clean_target(values: Any, degradation: Degradation, where: str) -> UInt8[np.ndarray, 'height width 1']:
    """The grey picture that training and evaluation read: the luma, cropped to multiples of the scale.

    Raises:
      UserError: for an invalid picture, or one smaller than the scale.
    """
    target = whole(luma(to_uint8(values), degradation.levels), degradation.scale)
    if not target.size:
        raise UserError(f'{where}: the picture is smaller than {degradation.scale} pixels, the factor of enlargement')
    return target[..., None]


class Degraded(NamedTuple):
    """The grey planes to restore, 0 to 1, the strength of their degradation, and the restored planes as a picture."""

    planes: list[Plane]
    strength: float
    recompose: Recompose


def degraded(degradation: Degradation, seed: int, raw: Mapping[str, Any]) -> Degraded:
    """The degraded picture of a row or request.

    That of a row depends on `seed` and its key alone: not on the batch, the number of hosts or the step.

    Raises:
      UserError: for a request without a valid picture.
    """
    if 'target' in raw:
        split, number = map(int, raw['key'])
        rng = np.random.Generator(np.random.Philox(key=[(seed << 32) | split, number]))
        plane = degrade(degradation, raw['target'][..., 0], degradation.strength, rng)
        return Degraded([plane], degradation.strength, lambda restored: restored[0][..., None])
    if 'image' not in raw:
        raise UserError("the request has no 'image'")
    image = raw['image']
    if isinstance(image, str):
        raise UserError(f"the request's 'image' is text, {image!r:.60}; give the bytes of a file or an array")
    planes, recompose = to_restore(read_image(image) if isinstance(image, bytes) else image, degradation)
    return Degraded(planes, degradation.stated(raw), recompose)


def example(
    degradation: Degradation, plane: Plane, strength: float, target: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The encoded fields of a patch or tile; a target is 0 to 1, NaN where it does not count."""
    encoded = {'image': np.ascontiguousarray(plane[..., None], np.float32), 'level': degradation.level(strength)}
    return encoded if target is None else {**encoded, 'target': np.ascontiguousarray(target[..., None], np.float32)}


def make_encode(degradation: Degradation, patch: int, seed: int) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `encode`: a tile of `split`, a random patch of a row, or without an rng the patch in its middle."""

    def encode(raw, rng=None):
        if 'tile' in raw:
            return raw['tile']
        target = raw['target'][..., 0] if 'target' in raw else None
        if target is not None and rng is not None:
            plane, target, strength = random_patch(degradation, target, patch, rng)
        else:
            (plane, *_), strength, _ = degraded(degradation, seed, raw)
            plane = central_patch(plane, patch // degradation.scale)
            target = None if target is None else central_patch(target, patch)
        return example(degradation, plane, strength, None if target is None else target / np.float32(255))

    return encode


def make_split(degradation: Degradation, tiling: Tiling, seed: int) -> Callable[[Mapping[str, Any]], list]:
    """Builds `split`: the tiles of all planes of a picture, with their targets if the truth is known."""

    def split(raw):
        planes, strength, _ = degraded(degradation, seed, raw)
        windows = [window for plane in planes for window in tiles.cut(tiling, plane)]
        if 'target' in raw:
            targets = tiles.cut_targets(tiling, raw['target'][..., 0] / np.float32(255))
        else:
            targets = [None] * len(windows)
        return [
            {'tile': example(degradation, window, strength, target)}
            for window, target in zip(windows, targets, strict=True)
        ]

    return split


def make_join(degradation: Degradation, tiling: Tiling, seed: int) -> Callable[..., dict[str, np.ndarray]]:
    """Builds `join`: the restored picture, with the input and the truth if that is known."""

    def join(raw, outputs):
        planes, _, recompose = degraded(degradation, seed, raw)
        count = len(outputs) // len(planes)
        images = [output['image'][..., 0] for output in outputs]
        restored = [
            tiles.assemble(tiling, images[number * count : (number + 1) * count], plane.shape)
            for number, plane in enumerate(planes)
        ]
        joined = {'image': recompose(restored)}
        if 'target' in raw:
            joined |= {'target': raw['target'][..., 0], 'input': enlarged(planes[0], degradation)}
        return joined

    return join


def to_restore(values: Any, degradation: Degradation) -> tuple[list[Plane], Recompose]:
    """The grey planes of a degraded picture, 0 to 1, and the function from restored planes to a picture.

    Noise is removed from red, green and blue separately. The luma is enlarged or freed of JPEG artefacts; the colour
    differences are enlarged by `resize`, or kept.

    Raises:
      UserError: for an invalid picture.
    """
    image = np.atleast_3d(check_image(values))
    image = image.astype(np.float32) / np.float32(255 if image.dtype.kind in 'iu' else 1)
    if image.shape[-1] == 1 or degradation.name == 'noise':
        planes = [image[..., channel] for channel in range(image.shape[-1])]
        return planes, lambda restored: np.stack(list(restored), -1)
    separated = to_planes(image * 255, degradation.levels)
    colours = resize(separated[..., 1:], degradation.scale) if degradation.scale > 1 else separated[..., 1:]

    def recompose(restored: Sequence[Plane]) -> Float[np.ndarray, 'height_out width_out channels']:
        planes = np.concatenate([restored[0][..., None] * 255, colours], -1)
        return np.clip(from_planes(planes, degradation.levels) / 255, 0, 1).astype(np.float32)

    return [(separated[..., 0] / 255).astype(np.float32)], recompose


def enlarged(degraded: Plane, degradation: Degradation) -> Plane:
    """What one has without a model: the degraded picture itself, or its bicubic enlargement, 0 to 1."""
    if degradation.scale == 1:
        return degraded
    return resize(np.round(degraded * 255).astype(np.uint8), degradation.scale).astype(np.float32) / 255


def quality(image: Plane, target: UInt8[np.ndarray, 'height width'], degradation: Degradation) -> tuple[float, float]:
    """PSNR in dB and SSIM of a picture from 0 to 1, by the protocol of the degradation.

    Super-resolution leaves out `scale` pixels at each side. Restored pictures are rounded to 8 bits, except those of
    noise; noise in the input is neither clipped nor rounded.
    """
    values = image.astype(np.float64) * 255
    values = np.clip(np.round(values), 0, 255) if degradation.rounds else values
    inside = tuple(slice(degradation.border, size - degradation.border) for size in target.shape)
    inside = inside if target[inside].size else ()
    return psnr(values[inside], target[inside]), ssim(values[inside], target[inside])


def make_decode(degradation: Degradation) -> Callable[[Mapping[str, np.ndarray]], dict[str, Any]]:
    """Builds `decode`: the restored picture; for a picture whose truth is known also that, the input and the errors."""

    def decode(outputs):
        image = np.asarray(outputs['image'])
        answer: dict[str, Any] = {'image': Picture(image)}
        if 'target' not in outputs:
            return answer
        target, given = outputs['target'], outputs['input']
        error = np.clip(np.abs(image[..., 0] - target / np.float32(255)) * ERROR_SCALE, 0, 1)
        pictures = {'input': given, 'truth': target, f'error_times_{ERROR_SCALE}': error}
        answer |= {name: Picture(values[..., None]) for name, values in pictures.items()}
        for name, values in (('', image[..., 0]), ('input_', given)):
            measured = quality(values, target, degradation)
            answer |= {f'{name}psnr': round(measured[0], 3), f'{name}ssim': round(measured[1], 5)}
        return answer

    return decode
