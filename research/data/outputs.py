"""Outputs other than text: pictures, sounds and boxes, each saved in its own format.

`Task.decode` may return these anywhere inside a JSON-like value. `plain` replaces them with a description, `save` with
a file name; both convert boxes to plain JSON.
"""

import io
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath
from jaxtyping import Float, Shaped

from research.errors import UserError


class Picture(NamedTuple):
    """A picture: uint8, or float in [0, 1], with 1, 3 or 4 channels."""

    pixels: Shaped[np.ndarray, 'height width channels']


class Sound(NamedTuple):
    """A sound: samples in [-1, 1], and their rate in Hz."""

    samples: Float[np.ndarray, 'samples']
    rate: int


class Boxes(NamedTuple):
    """Boxes in a picture: [left, top, right, bottom] in pixels, a label and a score for each."""

    boxes: Float[np.ndarray, 'boxes 4']
    labels: tuple[str, ...]
    scores: Float[np.ndarray, 'boxes']


def plain(answer: Any) -> Any:
    """Converts an answer to plain JSON values; a picture or sound becomes its kind and shape."""

    def described(kind: str, value: Any, name: str) -> dict[str, Any]:
        del name
        shape = list(np.shape(value[0]))
        return {'kind': kind, 'shape': shape, **({'rate': value.rate} if kind == 'sound' else {})}

    return replaced(answer, described, '')


def save(answer: Any, folder: epath.Path, name: str) -> Any:
    """Writes the pictures (PNG) and sounds (WAV) of an answer into `folder`; returns it with their file names.

    Args:
      answer: what `Task.decode` returned.
      folder: an existing folder.
      name: prefix of the file names; the path inside the answer follows.
    """

    def saved(kind: str, value: Any, where: str) -> dict[str, Any]:
        file = f'{name}{where}.{"png" if kind == "picture" else "wav"}'
        (folder / file).write_bytes(png(value.pixels) if kind == 'picture' else wav(value))
        return {'kind': kind, 'file': file}

    return replaced(answer, saved, '')


def replaced(value: Any, change: Callable[[str, Any, str], Any], where: str) -> Any:
    """Replaces every picture and sound in a nested value by `change(kind, value, path)`."""
    if isinstance(value, Picture):
        return change('picture', value, where)
    if isinstance(value, Sound):
        return change('sound', value, where)
    if isinstance(value, Boxes):
        rows = zip(value.boxes, value.labels, value.scores, strict=True)
        return [
            {'box': [round(float(side), 2) for side in box], 'label': label, 'score': round(float(score), 6)}
            for box, label, score in rows
        ]
    if isinstance(value, Mapping):
        return {name: replaced(item, change, f'{where}_{name}') for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [replaced(item, change, f'{where}_{number}') for number, item in enumerate(value)]
    return value


def bytes_of(pixels: Shaped[np.ndarray, '...']) -> np.ndarray:
    """Converts pixels to uint8 of shape [height, width] or [height, width, 3 or 4].

    Raises:
      UserError: for another number of axes or channels.
    """
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4)):
        shape = list(pixels.shape)
        raise UserError(f'an answer of shape {shape} is not a picture: expected [height, width, 1, 3 or 4]')
    if pixels.dtype != np.uint8:
        pixels = np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def png(pixels: Shaped[np.ndarray, '...']) -> bytes:
    """Encodes a picture as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(bytes_of(np.asarray(pixels))).save(buffer, 'PNG')
    return buffer.getvalue()


def wav(sound: Sound) -> bytes:
    """Encodes a sound as WAV with 16-bit samples."""
    import wave

    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sound.rate)
        file.writeframes(np.round(np.clip(sound.samples, -1, 1) * 32767).astype('<i2').tobytes())
    return buffer.getvalue()
