"""Configs: nested `ml_collections` files; below `make` there are only plain settings.

A file of `configs/` has `get_config()`, which starts from `base()` and sets what differs from the defaults, and
variants: functions that change a config in place. Every section is checked against the signature that
reads it, so an unknown key, a wrong type or an impossible value is one clear message before anything compiles.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import ml_collections
from etils import epath

from research.errors import (
    Count,
    NonNegative,
    Positive,
    PositiveInt,
    Range,
    Rate,
    SettingError,
    UserError,
    choose,
    fits,
    name_of,
    nearest,
    unpack,
)
from research.ops.seal import unsealed

SECTIONS = ('task', 'model', 'data', 'optimizer', 'methods', 'mesh', 'train', 'expected', 'seed')


# Settings renamed since older runs wrote their config.json: {section: {old: new}}.
OLD_NAMES = {
    'train': {'ema': 'ema_decay', 'average': 'average_checkpoints'},
    'mesh': {'smallest': 'min_shard_size'},
}
# The same for config.task: {task: {old: new}}.
OLD_TASK_NAMES = {
    'audio_classification': {'low': 'fmin', 'high': 'fmax', 'floor': 'power_floor', 'place': 'crop'},
}


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long and how often. Give `steps` or `epochs`, the other is None; 0 switches an interval off."""

    steps: Count | None = None  # 0: no training, as to evaluate pretrained weights
    epochs: Positive | None = None
    batch_size: PositiveInt = 32  # with Poisson sampling: the expected number of rows
    eval_batch_size: Count = 0  # 0: as batch_size
    sampling: Literal['shuffle', 'poisson'] = 'shuffle'  # 'poisson': each row independently, at random
    microbatches: PositiveInt = 1  # gradient accumulation: a batch is processed in this many parts
    log_every: PositiveInt = 50
    eval_every: Count = 0  # steps; 0: as `evaluations`
    evaluations: Count = 0  # over the whole run, at equal distances, where eval_every is 0
    eval_split: str = 'validation'
    test_split: str = 'test'  # evaluated once, at the end, with the best weights; '' for none
    checkpoint_every: Count = 0
    keep_last: PositiveInt = 2
    best: str = ''  # the metric of eval_split that chooses the best checkpoint, such as 'accuracy' or 'loss'
    patience: Count = 0  # stop after this many evaluations without a better `best`; 0: never
    ema_decay: Rate = 0.0  # of the averaged weights used for evaluation and prediction; 0: none
    average_checkpoints: Count = 0  # use the mean of the last N checkpoints; 0: the best or the newest one
    sample_every: Count = 0  # steps between samples (images, texts) for the report
    init_from: str = ''  # the folder of another run; its weights are loaded where path and shape match
    prefetch: PositiveInt = 2
    workers: Count = 0  # processes that encode examples; 0: threads of this process

    def __post_init__(self):
        if (self.steps is None) == (self.epochs is None):
            raise UserError('config.train: give either steps or epochs, and leave the other one None')
        if self.batch_size % self.microbatches:
            raise SettingError(f'microbatches={self.microbatches}', f'does not divide batch_size={self.batch_size}')
        if self.average_checkpoints > self.keep_last:
            raise SettingError(
                f'average_checkpoints={self.average_checkpoints}',
                f'is more than the checkpoints that are kept, keep_last={self.keep_last}',
            )
        if self.patience and not (self.best and (self.eval_every or self.evaluations)):
            raise SettingError('patience', 'needs train.best and train.eval_every or train.evaluations')

    def evaluation_interval(self, steps: int) -> int:
        """Steps from one evaluation to the next in a run of `steps` steps; 0: only at its end."""
        return self.eval_every or (max(1, steps // self.evaluations) if self.evaluations else 0)

    def total_steps(self, count: int, epoch: int | None = None) -> int:
        """The steps of the whole run on a training split of `count` rows, or with epochs of `epoch` steps."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None  # checked above
        return math.ceil(self.epochs * (count / self.batch_size if epoch is None else epoch))


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """One group's optimizer. Patterns are shell-style and match paths such as 'blocks/attention/query/kernel'."""

    name: Literal['adamw', 'adam', 'sgd'] = 'adamw'
    learning_rate: Positive = 1e-3
    schedule: Literal['constant', 'cosine', 'linear', 'trapezoid', 'inverse_sqrt'] = 'constant'
    warmup_steps: Count = 0
    end_fraction: NonNegative = 0.0  # final rate of cosine, linear and trapezoid, relative to learning_rate
    # Fraction of the updates, at the end, over which the rate of 'trapezoid' falls.
    cooldown: Annotated[float, Range(0, 1, above=True)] = 0.25
    b1: Rate = 0.9
    b2: Rate = 0.999
    eps: Positive = 1e-8
    momentum: Rate = 0.9  # for sgd
    nesterov: bool = False
    weight_decay: NonNegative = 0.0  # decoupled (adamw, sgd)
    decay: tuple[str, ...] = ('*kernel', '*embedding')  # parameters under weight decay, l1 and l2
    clip: NonNegative = 0.0  # global norm; 0: off
    l1: NonNegative = 0.0  # adds l1 * sum |w| to the objective
    l2: NonNegative = 0.0  # adds l2 / 2 * sum w^2 to the objective
    layer_decay: Positive = 1.0  # factor on the rate per block towards the input, embeddings lowest; 1: off
    frozen_blocks: Count = 0  # number of leading blocks to freeze in each stack
    frozen: tuple[str, ...] = ()  # patterns of parameters that are not trained
    update_every: PositiveInt = 1  # steps between updates (n-critic: 3 on the generator)


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Number of devices along each axis; one of them may be -1: all remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    min_shard_size: Count = 16384  # arrays with fewer elements stay replicated

    def __post_init__(self):
        sizes = (self.data, self.fsdp, self.tensor)
        if sum(size == -1 for size in sizes) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise UserError(f'config.mesh: sizes must be above zero, at most one -1, got {sizes}')


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked config. Each task, model, data set and method checks its own section."""

    task: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    optimizer: Mapping[str, OptimizerSettings]
    methods: tuple[Any, ...]  # names, modules or objects
    settings: Mapping[str, Mapping[str, Any]]  # {method: its section}
    mesh: MeshSettings
    train: TrainSettings
    expected: Mapping[str, Mapping[str, tuple[float, float]]]  # {split: {metric: (low, high)}}
    seed: int


def base(
    task: Any = '', model: str = '', data: Any = '', groups: tuple[str, ...] = ('model',)
) -> ml_collections.ConfigDict:
    """A config with every setting of the training loop at its default.

    Args:
      task, model, data: names, or '' to be set later; a task or a data set may be a module or an object.
      groups: of parameters, each with its optimizer.
    """
    defaults = dataclasses.asdict
    return ml_collections.ConfigDict(
        {
            'task': {'name': task},
            'model': {'name': model} if model else {},
            'data': {'name': data} if data else {},
            'optimizer': {group: defaults(OptimizerSettings()) for group in groups},
            'methods': (),
            'mesh': defaults(MeshSettings()),
            'train': {field.name: field.default for field in dataclasses.fields(TrainSettings)},
            'expected': {},
            'seed': 0,
        }
    )


def few_steps(
    config: Any, steps: int = 4, batch_size: int = 16, eval_batch_size: int = 64,
    log_every: int = 1, eval_every: int = 2, checkpoint_every: int = 2, **train: Any,
) -> None:
    """Makes a run short, in place, for variants that test a config; removes the expected metrics."""
    config.train.update(
        epochs=None, steps=steps, batch_size=batch_size, eval_batch_size=eval_batch_size, log_every=log_every,
        eval_every=eval_every, checkpoint_every=checkpoint_every, **train,
    )  # fmt: skip
    config.expected = {}


def read_config(config: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> Config:
    """Checks a config (a ConfigDict, or the dict of a stored run) and returns it as plain, read-only values.

    Args:
      config: sections as in `SECTIONS`, and one section for each method that needs settings.
      methods: every method that exists, with its default settings.

    Raises:
      UserError: names the section and key that is wrong, and the nearest right one.
    """
    values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    sections = (*SECTIONS, *map(method_section, methods))
    for name in values:
        if name not in sections:
            raise UserError(f'config.{name}: there is no such section; {nearest(name, sections)}')
    for name in SECTIONS:
        if name not in values:
            raise UserError(f'config.{name} is missing: start the config from research.core.config.base()')
        if name not in ('methods', 'seed') and not isinstance(values[name], Mapping):
            raise UserError(f'config.{name} must be a section of settings, got {values[name]!r}')
    if not fits(values['seed'], int) or not 0 <= values['seed'] < 2**31:
        raise UserError(f'config.seed: expected a whole number from 0 to 2**31 - 1, got {values["seed"]!r}')
    if not fits(values['methods'], tuple):
        raise UserError(f'config.methods: expected names in parentheses, such as ("lora",), got {values["methods"]!r}')
    chosen = tuple(values['methods'])
    for method in chosen:
        choose(name_of(method), methods, 'config.methods')
        section = method_section(method)
        if not isinstance(values.get(section) or {}, Mapping):
            raise UserError(f'config.{section} must be a section of settings, got {values[section]!r}')
    return Config(
        task=values['task'],
        model=values['model'],
        data=values['data'],
        optimizer={group: read_optimizer(group, section) for group, section in values['optimizer'].items()},
        methods=chosen,
        settings={section: values.get(section) or {} for section in map(method_section, chosen)},
        mesh=unpack(MeshSettings, values['mesh'], 'mesh'),
        train=unpack(TrainSettings, values['train'], 'train'),
        expected={split: read_ranges(split, metrics) for split, metrics in expected_of(values).items()},
        seed=values['seed'],
    )


def expected_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The expected ranges; {} if a reader replaces the named data set that they were measured on."""
    data = values['data']
    replaced = data.get('name') and data.get('reader', '') not in ('', 'tfds')
    return {} if replaced else values['expected']


def method_section(method: Any) -> str:
    """The section of a method's settings: the last part of its name, which may be a dotted path."""
    return name_of(method).rpartition('.')[2]


def read_optimizer(group: str, section: Any) -> OptimizerSettings:
    if not isinstance(section, Mapping):
        raise UserError(f'config.optimizer.{group} must be a section of settings, got {section!r}')
    return unpack(OptimizerSettings, section, f'optimizer.{group}')


def read_ranges(split: str, metrics: Any) -> dict[str, tuple[float, float]]:
    """Checks the expected ranges of one split, {metric: (low, high)}; raises UserError for anything else."""
    ranges = {}
    for name, pair in metrics.items() if isinstance(metrics, Mapping) else [('', metrics)]:
        where = f'config.expected.{split}.{name}'.rstrip('.')
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(fits(bound, float) for bound in pair)):
            raise UserError(f'{where}: expected a range (low, high), got {pair!r}')
        if pair[0] > pair[1]:
            raise UserError(f'{where}: the low end {pair[0]} is above the high end {pair[1]}')
        ranges[name] = (float(pair[0]), float(pair[1]))
    return ranges


def with_name(section: Mapping[str, Any]) -> dict[str, Any]:
    """A section as it is stored: a module or object under 'name' is replaced by its name."""
    return {key: name_of(value) if key == 'name' else value for key, value in section.items()}


def to_json(config: Config) -> str:
    """The resolved config as JSON, sufficient to repeat the run."""
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    values |= values.pop('settings')
    values['optimizer'] = {group: dataclasses.asdict(settings) for group, settings in config.optimizer.items()}
    values |= {'mesh': dataclasses.asdict(config.mesh), 'train': dataclasses.asdict(config.train)}
    return json.dumps(values, indent=2, default=name_of)


def stored_values(file: epath.Path) -> dict[str, Any]:
    """Reads a run's config.json and checks the SHA-256 in it (version 0.1 wrote none).

    Raises:
      UserError: if the file is damaged.
    """
    try:
        values = unsealed(json.loads(file.read_text()))
    except ValueError as error:
        raise UserError(f'{file} is damaged ({error}): restore the file, or use another --workdir') from None
    task = values.get('task')
    task_names = OLD_TASK_NAMES.get(task.get('name', ''), {}) if isinstance(task, dict) else {}
    for section, names in {**OLD_NAMES, 'task': task_names}.items():
        if isinstance(values.get(section), dict):
            values[section] = {names.get(name, name): value for name, value in values[section].items()}
    train = values.get('train')
    if isinstance(train, dict) and None not in (train.get('steps'), train.get('epochs')):
        train['epochs' if train['steps'] else 'steps'] = None  # version 0.1 stored the one that does not count as 0
    data = values.get('data')
    if isinstance(data, dict) and data.get('name') and not data.get('reader') and '.' not in data['name']:
        for name in ('validation_fraction', 'test_fraction'):  # version 0.1 stored and ignored them
            data.pop(name, None)
    return values
