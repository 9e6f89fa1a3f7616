"""Which of several classes a picture shows.

A row is {'image', 'label'}; a request is {'image'}: an array, or the path or bytes of a picture file.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from research.core.task import Aux, Context, Input, Metric, Task, Variables
from research.data.dataset import numbered, open_dataset
from research.data.image import images
from research.data.image.augmentations import Augmentations, augment, center_crop
from research.errors import UserError, choose, task_settings, unpack, without_name
from research.interop import pretrained
from research.nn.apply import initialize, run
from research.nn.mlp import MLP
from research.nn.resnet import ResNet
from research.nn.vision_transformer import VisionTransformer
from research.ops.classification import classification_metrics, classification_sums
from research.ops.losses import soft_cross_entropy, softmax_cross_entropy
from research.ops.mixing import mix

# Of a vision Transformer from scratch, where the config does not say (Dosovitskiy et al. 2021, section 3.1).
VIT = {
    'positions': 'learned', 'activation': 'gelu', 'query_key_value_bias': True, 'output_bias': True,
    'feed_forward_bias': True,
}  # fmt: skip


class Settings(NamedTuple):
    """Settings of `config.task`: how training pictures are varied, and what is measured."""

    # On the host, in this order; as of `research.data.image.augmentations.Augmentations`.
    resized_crop: float = 0.0  # a crop of at least this share of the area, resized; ImageNet: 0.08
    shift: int = 0  # training pictures are moved by up to so many pixels
    flip: bool = False  # half of the training pictures are mirrored left to right
    operations: int = 0  # of RandAugment, for each training picture
    magnitude: float = 9.0  # of these, 0 to 10
    erase: float = 0.0  # probability that a box of noise covers a part of a training picture
    # On the device, between the rows of a batch; as of `research.ops.mixing.mix`.
    mixup: float = 0.0  # alpha of the Beta distribution, 0: off
    cutmix: float = 0.0
    label_smoothing: float = 0.0
    center_crop: float = 0.0  # other pictures: the middle square with this share of the shorter side; 0: all
    standardize: bool = True  # pictures in units of the training split's deviation from its mean; False: 0 to 1
    statistics: int = 0  # training rows, evenly spaced, whose mean, deviation and classes are stored; 0: all
    top: int = 0  # also count labels among this many most probable classes; 0: min(5, classes - 1)

    def check(self) -> 'Settings':
        """Returns the settings; raises a `UserError` for impossible values."""
        if min(self.top, self.statistics, self.mixup, self.cutmix) < 0:
            raise UserError(
                'config.task: top, statistics, mixup and cutmix must be zero or more, got '
                f'{self.top}, {self.statistics}, {self.mixup} and {self.cutmix}'
            )
        if not 0 <= self.label_smoothing < 1 or not 0 <= self.center_crop <= 1:
            raise UserError(
                'config.task: label_smoothing must be from 0 to below 1 and center_crop in 0 to 1, got '
                f'{self.label_smoothing} and {self.center_crop}'
            )
        self.augmentations.check()
        return self

    @property
    def augmentations(self) -> Augmentations:
        """Those that vary training pictures on the host."""
        return Augmentations(*(getattr(self, name) for name in Augmentations._fields))

    @property
    def mixes(self) -> str:
        """The setting that mixes the rows of a batch, or ''."""
        return ' and '.join(f'config.task.{name}' for name in ('mixup', 'cutmix') if getattr(self, name))


class Patches(NamedTuple):
    """Settings of `config.model` for a vision Transformer from scratch, beside those of its shape."""

    patch: int = 4  # pixels along each side of a patch


class Model(NamedTuple):
    """What the task needs of a model."""

    init: Callable[[Any], tuple[Any, dict]]  # (key) -> parameters and other collections
    scores: Callable[[Any, dict, Any, Context], tuple[Any, dict]]  # (parameters, collections, pictures, context)
    mean: Sequence[float]  # of a channel of the pictures that it reads
    std: Sequence[float]
    load: Callable[[], Variables] | None = None  # pretrained weights


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
    data, settings = numbered(open_dataset(config.data, ('image', 'label'))), task_settings(Settings, config)
    rows = data.source('train')
    total, labels = np.zeros((2, data.shape[2])), []
    if len(data.classes) < 2:
        raise UserError(
            f'the training pictures are all of one class ({", ".join(data.classes)}); name the folder that '
            'holds one folder for each class'
        )
    if config.model.get('name') == 'vit':
        pretrained.store_pictures(without_name(config.model), folder, data.shape)
    count = min(settings.statistics or len(rows), len(rows))
    for number in range(count):
        row = rows[number * len(rows) // count]
        labels.append(row['label'])
        pixels = images.fit_image(row['image'], data.shape).astype(np.float64).reshape(-1, data.shape[2])
        total += [pixels.mean(0), (pixels**2).mean(0)]
    mean, square = total / count
    counts = np.bincount(labels, minlength=len(data.classes))
    std = np.sqrt(np.maximum(square - mean**2, 1e-8))
    facts = Facts(data.classes, data.shape, tuple(mean), tuple(std), tuple(counts.tolist()), data.about)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'classes.json').write_text(json.dumps(facts._asdict()))


def make_encode(facts: Facts, settings: Settings) -> Callable[..., dict[str, np.ndarray]]:
    """Returns `encode`: a float32 picture in [0, 1], varied when an rng is given; its label."""
    varied, share = settings.augmentations, settings.center_crop

    def encode(raw, rng=None):
        if 'image' not in raw:
            raise UserError("the request has no 'image'")
        image = raw['image']
        if isinstance(image, str):
            raise UserError(f"the request's 'image' is text, {image!r:.60}: give the bytes of a file, or pixels")
        if isinstance(image, bytes):
            image = images.read_image(image)
        if rng is not None:
            image = augment(image, facts.shape, varied, rng)
        else:
            image = images.fit_image(center_crop(images.check_image(image), share) if share else image, facts.shape)
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
        pictures, said = np.asarray(batch['image']), np.asarray(outputs['logits']).argmax(-1)
        true = np.asarray(batch.get('label', said))
        return {'right_and_wrong': images.right_and_wrong(pictures.__getitem__, said, true, mask, facts.classes)}

    return render


def make_decode(facts: Facts, top: int) -> Callable[[Any], dict[str, Any]]:
    """Returns `decode`: the most probable class, its probability, and the runners-up."""

    def decode(outputs):
        probability = np.asarray(outputs['probability'], np.float64)
        best = np.argsort(-probability, kind='stable')[: max(top, 1)]
        ranked = [{'label': facts.classes[k], 'probability': round(float(probability[k]), 6)} for k in best]
        return {**ranked[0], 'top': ranked}

    return decode


def plain_model(config: Any, facts: Facts, folder: epath.Path) -> Model:
    """Returns a perceptron or a residual network."""
    kind = {'mlp': MLP, 'resnet': ResNet}[config.model['name']]
    module = unpack(kind, without_name(config.model), 'model', classes=len(facts.classes))

    def scores(params, collections, pictures, context):
        return run(module, params, collections, pictures, train=context.train, key=context.fold('dropout'))

    return Model(lambda key: initialize(module, key, jnp.zeros((1, *facts.shape))), scores, facts.mean, facts.std)


def vit_model(config: Any, facts: Facts, folder: epath.Path) -> Model:
    """Returns a vision Transformer from scratch, or the one that `config.model.weights` names."""
    section, (height, width, _) = {**VIT, **without_name(config.model)}, facts.shape
    own = {key: section.pop(key) for key in Patches._fields if key in section}
    about = pretrained.read_about(section, folder)
    load = pretrained.make_load(section, folder)
    if about and about['image']['classes']:
        load = in_order(load, about['image'].get('labels', ()), facts.classes)
    side = about['image']['patch'] if about else unpack(Patches, own, 'model').patch
    if side < 1 or height % side or width % side:
        raise UserError(f'config.model.patch={side} does not divide pictures of {height}x{width} pixels')
    length = (height // side) * (width // side) + 1
    shape = pretrained.read_shape(section, folder, vocabulary=1, length=length, causal=False)
    module = VisionTransformer(shape, side, len(facts.classes))

    def scores(params, collections, pictures, context):
        rngs = {'dropout': context.fold('dropout')} if context.train else None
        return module.clone(train=context.train).apply({'params': params}, pictures, rngs=rngs), collections

    return Model(
        lambda key: initialize(module, key, jnp.zeros((1, *facts.shape))),
        scores,
        about['mean'] if about else facts.mean,
        about['std'] if about else facts.std,
        load,
    )


def in_order(load: Callable, labels: Sequence[str], classes: Sequence[str]) -> Callable:
    """Returns weights whose last layer answers for `classes`, where it was made for the same ones in another order."""
    if list(labels) == list(classes) or sorted(labels) != sorted(classes):
        return load
    order = np.array([list(labels).index(name) for name in classes])

    def ordered() -> Variables:
        variables = load()
        head = {name: leaf[..., order] for name, leaf in variables.params['model']['head'].items()}
        return variables._replace(params={'model': {**variables.params['model'], 'head': head}})

    return ordered


def make_loss(logits_of: Callable, classes: int, settings: Settings) -> Callable:
    """Returns the loss: the sum of cross-entropies, in training of rows that are mixed where the settings say so."""
    smoothing = settings.label_smoothing

    def plain(variables, batch, context):
        logits, collections = logits_of(variables, batch['image'], context)
        values = softmax_cross_entropy(logits, batch['label'], smoothing)
        return values, jnp.argmax(logits, axis=-1) == batch['label'], logits, collections

    def mixed(variables, batch, context):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(context.fold('mix'), batch['index'])
        targets = jax.nn.one_hot(batch['label'], classes)
        pictures, targets = mix(batch['image'], targets, batch['mask'], keys, settings.mixup, settings.cutmix)
        logits, collections = logits_of(variables, pictures, context)
        right = jnp.take_along_axis(targets, jnp.argmax(logits, axis=-1)[:, None], axis=-1)[:, 0]
        return soft_cross_entropy(logits, targets, smoothing), right, logits, collections

    def loss(variables, batch, context):
        values_of = mixed if settings.mixes and context.train else plain
        values, right, logits, collections = values_of(variables, batch, context)
        mask, extra = batch['mask'], {'model': collections} if collections else {}
        logs = {'accuracy': jnp.sum(right * mask)}
        return jnp.sum(values * mask), Aux(jnp.sum(mask), extra, logs, {'logits': logits})

    return loss


def make(config: Any, folder: epath.Path) -> Task:
    """Returns the task; its model is `config.model.name`, its data set `config.data.name`.

    Raises:
      UserError: for a setting that does not exist or cannot be.
    """
    facts = Facts(**json.loads((folder / 'classes.json').read_text()))
    facts = facts._replace(shape=tuple(facts.shape))
    data = numbered(open_dataset(config.data, ('image', 'label')), facts.classes)
    settings = task_settings(Settings, config)
    top = settings.top or min(5, len(facts.classes) - 1)
    makers = {'mlp': plain_model, 'resnet': plain_model, 'vit': vit_model}
    model = choose(config.model.get('name', ''), makers, 'config.model.name')(config, facts, folder)
    mean, std = (np.float32(model.mean), np.float32(model.std)) if settings.standardize else (0.0, 1.0)

    def init(key):
        params, collections = model.init(key)
        return Variables({'model': params}, {'model': collections} if collections else {})

    def logits_of(variables, pictures, context):
        collections = variables.extra.get('model', {})
        return model.scores(variables.params['model'], collections, (pictures - mean) / std, context)

    def predict(variables, batch, context):
        logits, _ = logits_of(variables, batch['image'], context._replace(train=False))
        return {'logits': logits, 'probability': jax.nn.softmax(logits)}

    def metric_sums(variables, batch, context):
        logits, _ = logits_of(variables, batch['image'], context._replace(train=False))
        return classification_sums(logits, batch['label'], batch['mask'], top)

    def metrics(sums):
        return {name: Metric(*each) for name, each in classification_metrics(sums, facts.counts, top).items()}

    height, width, _ = facts.shape
    return Task(
        inputs={
            'image': Input('image', facts.shape, images.LIMIT, f'{facts.about}; fitted to {height}x{width}')
        },
        source=data.source,
        encode=make_encode(facts, settings),
        init=init,
        losses={'model': make_loss(logits_of, len(facts.classes), settings)},
        couples_rows=settings.mixes,
        load=model.load,
        predict=predict,
        metric_sums=metric_sums,
        metrics=metrics,
        decode=make_decode(facts, top),
        render=make_render(facts),
    )
