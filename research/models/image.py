"""Image classifiers: a multilayer perceptron, a residual network, a vision Transformer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from research.core.task import Variables
from research.errors import PositiveInt, UserError, choose, unpack, unpack_part, without_name
from research.interop import pretrained
from research.models.model import GROUP, Model, builder_outside, defaults_of, model_of
from research.nn.mlp import MLP
from research.nn.resnet import ResNet
from research.nn.transformer_settings import TransformerSettings
from research.nn.vision_transformer import VisionTransformer

# Defaults of a vision Transformer trained from scratch (Dosovitskiy et al. 2021, section 3.1).
VIT = {
    'positions': 'learned', 'activation': 'gelu', 'query_key_value_bias': True, 'output_bias': True,
    'feed_forward_bias': True,
}  # fmt: skip


class Patches(NamedTuple):
    """Settings of the vision Transformer in addition to `TransformerSettings`."""

    patch: PositiveInt = 4  # side of a patch in pixels; ignored with pretrained weights


class Images(NamedTuple):
    """What a model needs to know about its input images."""

    classes: Sequence[str]  # names, in the order of the labels
    shape: tuple[int, int, int]  # height, width, channels; float32 in [0, 1]
    moments: tuple[Sequence[float], Sequence[float]] | None  # mean and deviation per channel; None: no scaling


SHAPE_GIVEN = ('vocabulary', 'length', 'causal')
SETTINGS = {
    'mlp': defaults_of(MLP, 'classes'),
    'resnet': defaults_of(ResNet, 'classes'),
    'vit': defaults_of(TransformerSettings, *SHAPE_GIVEN, **VIT) | defaults_of(Patches) | pretrained.DEFAULTS,
}


def store_image_weights(section: Mapping[str, Any], folder: epath.Path, shape: tuple[int, int, int]) -> None:
    """Stores the pretrained weights that `config.model` names, if any; see `pretrained.store_pictures`."""
    if section.get('name') == 'vit':
        pretrained.store_pictures(without_name(section), folder, shape)


def image_model(section: Mapping[str, Any], images: Images, folder: epath.Path) -> Model:
    """Builds the model of `config.model`; it reads 'image' [batch, height, width, channels].

    Args:
      section: `config.model`.
      images: classes, shape and moments of its inputs.
      folder: the run's prepared folder.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    name, settings = section.get('name', ''), without_name(section)
    if outside := builder_outside(name, 'image_model'):
        return outside(section, images, folder)
    choose(name, SETTINGS, 'config.model.name')
    if name == 'vit':
        return vision_transformer(settings, images, folder)
    module = unpack({'mlp': MLP, 'resnet': ResNet}[name], settings, 'model', classes=len(images.classes))
    return standardized_model(module, images.shape, images.moments)


def standardized_model(module: Any, shape: tuple[int, int, int], moments: Any, load: Callable | None = None) -> Model:
    """Builds the model of a module whose input images are standardized."""
    mean, std = (np.float32(moment) for moment in moments) if moments else (np.float32(0), np.float32(1))

    def inputs(batch):
        return ((batch['image'] - mean) / std,)

    return model_of(module, inputs, {'image': np.zeros((1, *shape), np.float32)}, load)


def vision_transformer(settings: Mapping[str, Any], images: Images, folder: epath.Path) -> Model:
    """Builds a vision Transformer, initialized or with the pretrained weights that the settings name."""
    module, moments, weights = image_encoder(settings, images, folder)
    if weights is None:
        return standardized_model(module, images.shape, moments)
    load = pretrained.make_load(settings, folder)
    if weights['image']['classes']:
        load = reorder_head(load, weights['image'].get('labels', ()), images.classes)  # pyright: ignore[reportArgumentType]
    return standardized_model(module, images.shape, moments, load)


def image_encoder(
    settings: Mapping[str, Any], images: Images, folder: epath.Path
) -> tuple[VisionTransformer, Any, dict[str, Any] | None]:
    """The module of a vision Transformer, the moments of its inputs, and the description of its weights or None."""
    patches, section = unpack_part(Patches, {**VIT, **settings}, 'model')
    weights = pretrained.read_description(section, folder)
    side = weights['image']['patch'] if weights else patches.patch
    height, width, _ = images.shape
    if height % side or width % side:
        raise UserError(f'config.model.patch={side} does not divide images of {height}x{width} pixels')
    length = (height // side) * (width // side) + 1
    shape = pretrained.read_shape(section, folder, vocabulary=1, length=length, causal=False)
    moments = (weights['mean'], weights['std']) if weights and images.moments else images.moments
    return VisionTransformer(shape, side, len(images.classes)), moments, weights


def reorder_head(load: Callable, labels: Sequence[str], classes: Sequence[str]) -> Callable:
    """Permutes the head of loaded weights to the order of `classes`, if its labels are the same classes."""
    if list(labels) == list(classes) or sorted(labels) != sorted(classes):
        return load
    order = np.array([list(labels).index(name) for name in classes])

    def ordered() -> Variables:
        variables = load()
        params = variables.params[GROUP]
        head = {name: leaf[..., order] for name, leaf in params['head'].items()}
        return variables._replace(params={GROUP: {**params, 'head': head}})

    return ordered
