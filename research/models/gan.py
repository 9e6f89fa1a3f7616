"""Pairs of generator and discriminator."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from research.core.task import Variables, fold
from research.errors import PositiveInt, choose, in_section, unpack
from research.models.model import builder_outside, defaults_of
from research.nn import dcgan, gan, sngan
from research.nn.apply import initialize, run_group

PAIRS = {
    'mlp': (gan.MLPGenerator, gan.MLPDiscriminator),
    'conv': (gan.ConvGenerator, gan.ConvDiscriminator),
    'dcgan': (dcgan.DCGANGenerator, dcgan.DCGANDiscriminator),
    'sngan': (dcgan.DCGANGenerator, sngan.ConvSNDiscriminator),
    'resnet': (sngan.ResNetGenerator, sngan.ResNetDiscriminator),
}


class GAN(NamedTuple):
    """Settings of `config.model`; 'generator' and 'discriminator' hold the settings of their modules."""

    name: str
    generator: dict
    discriminator: dict
    latent: PositiveInt = 64  # dimension of the noise


SETTINGS = {
    name: {
        'generator': defaults_of(generator, 'classes'),
        'discriminator': defaults_of(discriminator, 'classes'),
        **defaults_of(GAN),
    }
    for name, (generator, discriminator) in PAIRS.items()
}


class Pair(NamedTuple):
    """Generator and discriminator as pure functions of `Variables`."""

    generate: Callable  # (variables, noise, labels, context) -> (images in [-1, 1], new collections)
    judge: Callable  # (variables, images, labels, context, collections) -> (logits, new collections)
    init: Callable  # (key) -> Variables
    latent: int


def gan_pair(section: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Pair:
    """Builds the pair of `config.model`.

    Args:
      section: `config.model`.
      shape: height, width and channels of the images.
      classes: number of labels of conditional networks; 0: unconditional.

    Raises:
      UserError: if the model or a setting is unknown, or a value impossible.
    """
    if outside := builder_outside(section.get('name', ''), 'gan_pair'):
        return outside(section, shape, classes)
    settings = unpack(GAN, section, 'model')
    makers = choose(settings.name, PAIRS, 'config.model.name')
    generator = unpack(makers[0], settings.generator, 'model.generator', shape=shape, classes=classes)
    discriminator = unpack(makers[1], settings.discriminator, 'model.discriminator', classes=classes)

    def generate(variables, noise, labels, context):
        return run_group(generator, variables, 'generator', context, noise, labels)

    def judge(variables, images, labels, context, collections):
        # Real and fake images go through separate calls: batch norm over both would leak which is which.
        variables = variables._replace(extra={**variables.extra, 'discriminator': collections})
        return run_group(discriminator, variables, 'discriminator', context, images, labels)

    def init(key):
        label = jnp.zeros(1, jnp.int32)
        inputs = {
            'discriminator': (discriminator, jnp.zeros((1, *shape))),
            'generator': (generator, jnp.zeros((1, settings.latent))),
        }
        initialized = {}
        for group, (module, first) in inputs.items():
            with in_section(f'model.{group}'):
                initialized[group] = initialize(module, fold(key, group), first, label)
        extra = {group: collections for group, (_, collections) in initialized.items() if collections}
        return Variables({group: params for group, (params, _) in initialized.items()}, extra)

    return Pair(generate, judge, init, settings.latent)
