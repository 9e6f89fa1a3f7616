"""Builders of models: the settings that they list are the ones that exist, with the defaults that they have."""

import inspect

import jax
import numpy as np
import pytest
from etils import epath

from research.data.text.text_arrays import TextArrays
from research.errors import UserError
from research.models import audio, image, sequence, table, text
from research.models.image import Images

PICTURES = Images(('a', 'b', 'c'), (8, 8, 1), ((0.5,), (0.25,)))
TEXTS = TextArrays(None, 30, 8, 'right', False, len, 8)
KMERS = {'kmers': np.zeros((1, 8), np.int32), 'length': np.ones(1, np.int32)}
BUILDERS = {
    image: lambda section: image.image_model(section, PICTURES, epath.Path('unused')),
    audio: lambda section: audio.sound_model(section, 3, (16, 16, 1)),
    sequence: lambda section: sequence.sequence_model(section, 3, 64, 8, KMERS),
    table: lambda section: table.table_model(section, 3, 2, (4, 5)),
    text: lambda section: text.text_model(section, 3, TEXTS, epath.Path('unused')),
}
MODELS = [(module, name) for module in BUILDERS for name in module.SETTINGS]


def title(value):
    return value if isinstance(value, str) else inspect.getmodulename(value.__file__)


@pytest.mark.parametrize(('module', 'name'), MODELS, ids=title)
def test_listed_settings_are_the_defaults(module, name):
    """A config that spells every setting out builds the model of one that spells out none."""
    build, settings = BUILDERS[module], module.SETTINGS[name]
    defaults = {key: getattr(setting, 'default', setting) for key, setting in settings.items()}
    small = {'filters': (8,)} if name == 'convnet' else {}
    bare, full = (build({'name': name, **each, **small}) for each in ({}, defaults))
    assert bare.module == full.module and bare.load is full.load is None
    with pytest.raises(UserError, match=r'config\.model\.wydth: there is no such setting'):
        build({'name': name, 'wydth': 1})
    variables = jax.eval_shape(bare.init, jax.random.key(0))
    assert set(variables.params) == {'model'} and not set(settings) & {'units', 'classes', 'vocabulary', 'parent'}


@pytest.mark.parametrize('module', BUILDERS, ids=title)
def test_an_unknown_model_is_named(module):
    with pytest.raises(UserError, match=r"config\.model\.name: 'nothing' is unknown"):
        BUILDERS[module]({'name': 'nothing'})


def test_images_are_standardized_by_the_moments_of_the_training_split():
    from research.core.task import Context

    model, raw = (image.image_model({'name': 'mlp', 'widths': (4,)}, images, epath.Path('unused'))
                  for images in (PICTURES, PICTURES._replace(moments=None)))  # fmt: skip
    variables, context = model.init(jax.random.key(0)), Context(jax.random.key(0), 0, False)
    batch = {'image': np.random.default_rng(0).random((2, 8, 8, 1), np.float32)}
    expected, _ = raw.apply(variables, {'image': (batch['image'] - 0.5) / 0.25}, context)
    np.testing.assert_allclose(model.apply(variables, batch, context)[0], expected, rtol=1e-6)
