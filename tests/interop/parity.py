"""Our logits beside those of the reference implementation, for a model as read from a folder."""

import jax
import numpy as np

from research.nn.encoder_decoder import EncoderDecoder
from research.nn.transformer import Transformer
from research.nn.transformer_settings import TransformerSettings
from research.nn.vision_transformer import VisionTransformer


def outputs_of(pretrained, inputs):
    """Returns our logits, and BERT's pooled where the model has it."""
    settings = TransformerSettings(**pretrained.settings)

    @jax.jit
    def run(params, inputs):
        if 'images' in inputs:
            image = pretrained.about['image']
            model = VisionTransformer(settings, image['patch'], image['classes'])
            return {'logits': model.apply({'params': params}, inputs['images'])}
        if 'source' in inputs:
            given = (inputs[name] for name in ('source', 'source_length', 'tokens'))
            return {'logits': EncoderDecoder(settings).apply({'params': params}, *given)}

        def both(module):
            x, _ = module.features(inputs['tokens'], inputs['length'], types=inputs.get('types'))
            pooled = {'pooled': module.pooled(x)} if settings.pooler else {}
            return {'logits': module.logits(x), **pooled}

        return Transformer(settings).apply({'params': params}, method=both)

    return jax.device_get(run(pretrained.params, dict(inputs)))


def largest_difference(pretrained, inputs, expected):
    """Returns the largest difference from the reference's outputs, padding left out."""
    outputs, found = outputs_of(pretrained, inputs), []
    assert set(outputs) == set(expected)
    for name, value in expected.items():
        difference = np.abs(outputs[name] - value)
        if name == 'logits' and 'tokens' in inputs and 'source' not in inputs:
            difference = difference[np.arange(value.shape[1]) < inputs['length'][:, None]]
        found.append(difference.max())
    return max(found)
