"""Weights of Inception-v3 for the Fréchet Inception distance, from a user's file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from research.errors import UserError
from research.nn.inception import SIDE, InceptionV3

FID_CLASSES = 1008  # of the weights that define the distance; weights with ImageNet's 1,000 give other features
EPSILON = 1e-3  # of batch norm
NORM = ('weight', 'bias', 'running_mean', 'running_var')


def read_inception(name: str, where: str, thinner: int = 1) -> dict[str, Any]:
    """Reads the parameters of `InceptionV3`, with batch norm folded in, from a safetensors file.

    Tensor names are those of PyTorch's port of the weights of 2015-12-05 ('Mixed_5b.branch1x1.conv.weight',
    and 'bn' beside 'conv').

    Args:
      name: the file. where: the setting that names it, for messages. thinner: of `InceptionV3`.

    Raises:
      UserError: if the file is missing or damaged, has other weights, or lacks a tensor.
    """
    file = Path(name).expanduser()
    if not name or not file.is_file():
        raise UserError(f'{where}={name!r}: there is no such file. {how_to_get(file)}')
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f'{where}={name!r} is not a safetensors file ({error}). {how_to_get(file)}') from None
    classes = len(tensors['fc.weight']) if 'fc.weight' in tensors else 0
    if classes != FID_CLASSES:
        raise UserError(
            f"{where}={name!r}: 'fc.weight' has {classes:,} rows, and the weights that the Fréchet Inception distance "
            f'is defined by have {FID_CLASSES:,}: other weights give a different metric. {how_to_get(file)}'
        )
    expected = jax.eval_shape(InceptionV3(thinner).init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))['params']
    return {layer: folded(tensors, layer, wanted['kernel'].shape, file) for layer, wanted in expected.items()}


def how_to_get(file: Path) -> str:
    """Explains how to convert the file of PyTorch users."""
    return (
        'It is made where torch is, from pt_inception-2015-12-05-6726825d.pth of the package pytorch-fid: '
        'import torch, safetensors.torch; safetensors.torch.save_file(torch.load("pt_inception-2015-12-05-6726825d'
        f'.pth"), "{file.stem or "inception"}.safetensors")'
    )


def folded(tensors: Mapping[str, np.ndarray], layer: str, shape: tuple[int, ...], file: Path) -> dict[str, np.ndarray]:
    """Kernel [height, width, inputs, outputs] and bias of a convolution with its batch norm folded in."""
    height, width, inputs, outputs = shape
    wanted: dict[str, tuple[int, ...]] = {f'{layer}.conv.weight': (outputs, inputs, height, width)}
    wanted.update({f'{layer}.bn.{part}': (outputs,) for part in NORM})
    for name, size in wanted.items():
        if name not in tensors:
            raise UserError(f'{file}: tensor {name!r} is missing, so it is not Inception-v3')
        if tensors[name].shape != size:
            actual = list(tensors[name].shape)
            raise UserError(f'{file}: tensor {name!r} has shape {actual}, expected {list(size)}')
    kernel, scale, offset, mean, variance = (np.asarray(tensors[name], np.float64) for name in wanted)
    scale = scale / np.sqrt(variance + EPSILON)
    kernel = kernel * scale[:, None, None, None]
    return {'kernel': np.float32(kernel.transpose(2, 3, 1, 0)), 'bias': np.float32(offset - mean * scale)}  # pyright: ignore[reportReturnType]
