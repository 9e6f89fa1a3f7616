"""Which of several classes a picture shows.

A row is {'image', 'label'}; a request is {'image'}: an array, or the path or bytes of a picture file.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Aux, Figure, Input, Task, Variables
from research.data import images
from research.data.image_sets import image_set
from research.errors import UserError, choose, unpack
from research.nn.apply import initialize, run
from research.nn.mlp import MLP
from research.nn.resnet import ResNet
from research.ops.classification import classification_figures, classification_sums
from research.ops.losses import softmax_cross_entropy


class Settings(NamedTuple):
    """Settings of `config.task`."""

    shift: int = 0  # training pictures are moved by up to so many pixels
    flip: bool = False  # half of the training pictures are mirrored left to right
    label_smoothing: float = 0.0
    top: int = 0  # also count labels among this many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Returns the settings; raises a `UserError` for impossible values."""
        if self.shift < 0 or self.top < 0:
            raise UserError(
                f'config.task: shift and top must be zero or more, got {self.shift} and {self.top}'
            )
        if not 0 <= self.label_smoothing < 1:
            raise UserError(f'config.task.label_smoothing must be in 0 to 1, got {self.label_smoothing}')
        return self


class Facts(NamedTuple):
    """What `prepare` stores of the training split."""

    classes: tuple  # names, in the order of the labels
    shape: tuple  # height, width, channels
    mean: tuple  # per channel
    std: tuple
    counts: tuple  # training rows per class
    about: str


def prepare(config: Any, folder: epath.Path) -> None:
    """Stores class names and counts, the shape, and mean and deviation of each channel in 'classes.json'."""
    data = image_set(config.data)
    rows = data.source('train')
    total, labels = np.zeros((2, data.shape[2])), []
    if len(data.classes) < 2:
        raise UserError(
            f'the training pictures are all of one class ({", ".join(data.classes)}); name the folder that '
            'holds one folder for each class'
        )
    for row in rows:
        labels.append(row['label'])
        pixels = images.fit_image(row['image'], data.shape).astype(np.float64).reshape(-1, data.shape[2])
        total += [pixels.mean(0), (pixels**2).mean(0)]
    mean, square = total / len(rows)
    counts = np.bincount(labels, minlength=len(data.classes))
    std = np.sqrt(np.maximum(square - mean**2, 1e-8))
    facts = Facts(data.classes, data.shape, tuple(mean), tuple(std), tuple(counts.tolist()), data.about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'classes.json').write_text(json.dumps(facts._asdict()))


def make_encode(facts: Facts, settings: Settings) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: a float32 picture in [0, 1], moved and mirrored when an rng is given; its label."""

    def encode(raw, rng=None):
        if 'image' not in raw:
            raise UserError("the request has no 'image'")
        image = raw['image']
        if isinstance(image, str):
            raise UserError(f"the request's 'image' is text, {image!r:.60}: give the bytes of a file, or pixels")
        if isinstance(image, bytes):
            image = images.read_image(image)
        image = images.fit_image(image, facts.shape)
        if rng is not None and settings.shift:
            image = images.shift_image(image, rng, settings.shift)
        if rng is not None and settings.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        example = {'image': np.ascontiguousarray(image)}
        if 'label' in raw:
            if not 0 <= raw['label'] < len(facts.classes):
                raise UserError(f'label {raw["label"]!r} is none of the {len(facts.classes)} classes')
            example['label'] = np.int32(raw['label'])
        return example

    return encode


def make_render(facts: Facts) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `render`: the pictures with what they were called, wrong ones first in a red frame."""

    def render(batch, outputs):
        mask = np.asarray(batch.get('mask', np.ones(len(batch['image']))))
        pictures, labels = np.asarray(batch['image']), batch.get('label')
        said = np.asarray(outputs['logits']).argmax(-1)
        true = said if labels is None else np.asarray(labels)
        shown = np.flatnonzero(mask > 0)
        shown = shown[np.argsort(said[shown] == true[shown], kind='stable')]
        captions, frames = [], []
        for row in shown:
            wrong = said[row] != true[row]
            name = facts.classes[said[row]]
            captions.append(f'{name}, is {facts.classes[true[row]]}' if wrong else name)
            frames.append(images.RED if wrong else None)
        return {'right_and_wrong': images.grid(pictures[shown], 10, captions=captions, frames=frames)}

    return render


def make_decode(facts: Facts, top: int) -> Callable[[Any], dict[str, Any]]:
    """Returns `decode`: the most probable class, its probability, and the runners-up."""

    def decode(outputs):
        probability = np.asarray(outputs['probability'], np.float64)
        best = np.argsort(-probability, kind='stable')[: max(top, 1)]
        ranked = [{'label': facts.classes[k], 'probability': round(float(probability[k]), 6)} for k in best]
        return {**ranked[0], 'top': ranked}

    return decode


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; its model is `config.model.name`, its data set `config.data.name`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    facts = Facts(**json.loads((folder / 'classes.json').read_text()))
    facts = facts._replace(shape=tuple(facts.shape))
    data = image_set(config.data, facts.classes, facts.shape)
    settings = unpack(Settings, {k: v for k, v in config.task.items() if k != 'name'}, 'task').check()
    top = settings.top or min(5, len(facts.classes) - 1)
    model_class = choose(config.model.get('name', ''), {'mlp': MLP, 'resnet': ResNet}, 'config.model.name')
    options = {key: value for key, value in config.model.items() if key != 'name'}
    model = unpack(model_class, options, 'model', classes=len(facts.classes))
    mean, std = np.float32(facts.mean), np.float32(facts.std)

    def init(key):
        params, collections = initialize(model, key, jnp.zeros((1, *facts.shape)))
        return Variables({'model': params}, {'model': collections} if collections else {})

    def logits_of(variables, batch, context):
        images = (batch['image'] - mean) / std
        params, collections = variables.params['model'], variables.extra.get('model', {})
        return run(model, params, collections, images, train=context.train, key=context.fold('dropout'))

    def loss(variables, batch, context):
        logits, collections = logits_of(variables, batch, context)
        mask = batch['mask']
        values = softmax_cross_entropy(logits, batch['label'], settings.label_smoothing)
        right = (jnp.argmax(logits, axis=-1) == batch['label']) * mask
        extra = {'model': collections} if collections else {}
        return jnp.sum(values * mask), Aux(
            jnp.sum(mask), extra, {'accuracy': jnp.sum(right)}, {'logits': logits}
        )

    def predict(variables, batch, context):
        logits, _ = logits_of(variables, batch, context._replace(train=False))
        return {'logits': logits, 'probability': jax.nn.softmax(logits)}

    def metrics(variables, batch, context):
        logits, _ = logits_of(variables, batch, context._replace(train=False))
        return classification_sums(logits, batch['label'], batch['mask'], top)

    def figures(sums):
        return {name: Figure(*each) for name, each in classification_figures(sums, facts.counts, top).items()}

    height, width, _ = facts.shape
    return Task(
        inputs={
            'image': Input('image', facts.shape, images.LIMIT, f'{facts.about}; fitted to {height}x{width}')
        },
        source=data.source,
        encode=make_encode(facts, settings),
        init=init,
        losses={'model': loss},
        predict=predict,
        metrics=metrics,
        figures=figures,
        decode=make_decode(facts, top),
        render=make_render(facts),
    )
