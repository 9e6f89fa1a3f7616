"""Configs: nested, locked `ml_collections` files; below `make` there are only plain settings.

A file of `configs/` has `get_config(variant='')`, which starts from `base()` and sets what differs. Every
section is checked against the signature that reads it, so an unknown key, a wrong type or an impossible
value is one clear message before anything compiles.
"""

import ast
import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections
from etils import epath

from research.data.readers.settings import DataSettings
from research.errors import UserError, choose, fits, nearest, unpack

# Settings of `config.data` that every reader of a user's files knows.
FILES = (  # settings of readers that no built-in set has under the same name: flags of every config
    'train', 'validation', 'test', 'fields', 'columns', 'delimiter', 'label_pattern', 'shape', 'missing', 'every_class',
    'validation_fraction', 'test_fraction', 'on_error', 'error_limit',
)  # fmt: skip
SECTIONS = ('task', 'model', 'data', 'optimizer', 'methods', 'mesh', 'train', 'expected', 'seed')


def positive(settings: Any, where: str, *names: str, zero: bool = False) -> None:
    """Raises a `UserError` for each named field that is not above zero (or zero where that means 'off')."""
    for name in names:
        value = getattr(settings, name)
        if not (0 < value < math.inf or (zero and value == 0)):
            raise UserError(f'config.{where}.{name} must be {"zero or more" if zero else "above zero"}, got {value!r}')


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long and how often. Give `steps` or `epochs`; 0 switches an interval off."""

    steps: int = 0
    epochs: float = 0.0
    batch_size: int = 32  # with Poisson sampling: the rows to expect
    eval_batch_size: int = 0  # 0: as batch_size
    sampling: Literal['shuffle', 'poisson'] = 'shuffle'  # or each row by itself, at random
    microbatches: int = 1  # gradient accumulation: the batch is read in this many parts
    log_every: int = 50
    eval_every: int = 0
    eval_split: str = 'validation'
    test_split: str = 'test'  # measured once, at the end, with the best weights; '' for none
    checkpoint_every: int = 0
    keep_last: int = 2
    best: str = ''  # the metric of eval_split that chooses the best checkpoint, as 'accuracy' or 'loss'
    patience: int = 0  # stop after this many evaluations without a better `best`; 0: never
    ema: float = 0.0  # decay of the averaged weights that are evaluated and served; 0: none
    average: int = 0  # checkpoints, the last ones, whose mean is evaluated and served; 0: the best or the newest
    sample_every: int = 0  # pictures or texts for the report
    init_from: str = ''  # the folder of another run whose weights are taken where path and shape match
    prefetch: int = 2
    workers: int = 0  # processes that encode examples; 0: threads of this process

    def __post_init__(self):
        positive(self, 'train', 'batch_size', 'microbatches', 'log_every', 'keep_last', 'prefetch')
        positive(self, 'train', 'steps', 'epochs', 'eval_batch_size', 'eval_every', 'checkpoint_every', zero=True)
        positive(self, 'train', 'patience', 'ema', 'average', 'sample_every', 'workers', zero=True)
        if bool(self.steps) == bool(self.epochs):
            raise UserError('config.train: give either steps or epochs (the other one 0)')
        if self.batch_size % self.microbatches:
            raise UserError(
                f'config.train.microbatches={self.microbatches} does not divide batch_size={self.batch_size}'
            )
        if self.ema >= 1:
            raise UserError(f'config.train.ema must be below 1, got {self.ema}')
        if self.average > self.keep_last:
            raise UserError(
                f'config.train.average={self.average} needs as many checkpoints: keep_last is {self.keep_last}'
            )
        if self.patience and not (self.best and self.eval_every):
            raise UserError('config.train.patience needs train.best and train.eval_every')

    def total_steps(self, count: int, epoch: int | None = None) -> int:
        """Returns the steps of the whole run on a training split of `count` rows, or with epochs of `epoch` steps."""
        return self.steps or math.ceil(self.epochs * (count / self.batch_size if epoch is None else epoch))


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """One group's optimizer. Patterns are shell-style and match paths such as 'blocks/attention/query/kernel'."""

    name: Literal['adamw', 'adam', 'sgd'] = 'adamw'
    learning_rate: float = 1e-3
    schedule: Literal['constant', 'cosine', 'linear', 'trapezoid', 'inverse_sqrt'] = 'constant'
    warmup_steps: int = 0
    end_fraction: float = 0.0  # of the learning rate, where cosine, linear and trapezoid end
    cooldown: float = 0.25  # the last share of the updates, over which a trapezoid's rate falls
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9  # of sgd
    nesterov: bool = False
    weight_decay: float = 0.0  # decoupled (adamw, sgd)
    decay: tuple = ('*kernel', '*embedding')  # what weight decay and the penalties apply to
    clip: float = 0.0  # global norm; 0: off
    l1: float = 0.0  # adds l1 * sum |w| to the objective
    l2: float = 0.0  # adds l2 / 2 * sum w^2 to the objective
    layer_decay: float = 1.0  # rates fall by it per block towards the input, embeddings lowest; 1: all alike
    frozen_blocks: int = 0  # so many first blocks of each stack stay as they are
    frozen: tuple = ()  # patterns of parameters that stay as they are
    update_every: int = 1  # steps between updates (n-critic: 3 on the generator)

    def __post_init__(self):
        positive(self, 'optimizer', 'learning_rate', 'update_every', 'eps', 'layer_decay')
        positive(self, 'optimizer', 'warmup_steps', 'end_fraction', 'weight_decay', 'clip', 'l1', 'l2', zero=True)
        positive(self, 'optimizer', 'frozen_blocks', zero=True)
        if not 0 < self.cooldown <= 1:
            raise UserError(f'config.optimizer: cooldown must be above 0 and at most 1, got {self.cooldown!r}')


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis; one of them may be -1: all that are left."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    smallest: int = 16384  # arrays with fewer elements stay replicated

    def __post_init__(self):
        sizes = (self.data, self.fsdp, self.tensor)
        if sum(size == -1 for size in sizes) > 1 or any(size < 1 and size != -1 for size in sizes):
            raise UserError(f'config.mesh: sizes must be above zero, at most one -1, got {sizes}')


@dataclasses.dataclass(frozen=True)
class Config:
    """A checked config. `task`, `model`, `data` and `settings` (of methods) are read by those who own them."""

    task: Mapping[str, Any]
    model: Mapping[str, Any]
    data: Mapping[str, Any]
    optimizer: Mapping[str, OptimizerSettings]
    methods: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]  # {method: its section}
    mesh: MeshSettings
    train: TrainSettings
    expected: Mapping[str, Mapping[str, tuple[float, float]]]  # {split: {metric: (low, high)}}
    seed: int


def base(groups: tuple[str, ...] = ('model',)) -> ml_collections.ConfigDict:
    """Returns a config with every setting of the loop at its default; `groups` name the optimizers."""
    defaults = dataclasses.asdict
    return ml_collections.ConfigDict(
        {
            'task': {'name': ''},
            'model': {},
            'data': {},
            'optimizer': {group: defaults(OptimizerSettings()) for group in groups},
            'methods': (),
            'mesh': defaults(MeshSettings()),
            'train': {field.name: field.default for field in dataclasses.fields(TrainSettings)},
            'expected': {},
            'seed': 0,
        }
    )


def own_files(**settings: Any) -> dict[str, Any]:
    """Returns `config.data` where a user's files can be read: what all readers know, at its default, and `settings`.

    With a `name` and no `reader` it is a built-in set.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(DataSettings)}
    return {'name': '', 'reader': '', **{name: defaults[name] for name in FILES}, **settings}


def read_config(config: Mapping[str, Any], methods: Mapping[str, Mapping[str, Any]]) -> Config:
    """Checks a config (a ConfigDict, or the dict of a stored run) and returns it as plain, read-only values.

    Args:
      config: sections as in `SECTIONS`, and one section for each method that needs settings.
      methods: every method that exists, with its default settings.

    Raises:
      UserError: names the section and key that is wrong, and the nearest right one.
    """
    values = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    for name in values:
        if name not in SECTIONS and name not in methods:
            raise UserError(f'config.{name}: there is no such section; {nearest(name, (*SECTIONS, *methods))}')
    for name in SECTIONS:
        if name not in values:
            raise UserError(f'config.{name} is missing: start the config from research.core.config.base()')
        if name not in ('methods', 'seed') and not isinstance(values[name], Mapping):
            raise UserError(f'config.{name} must be a section of settings, got {values[name]!r}')
    if not fits(values['seed'], int) or abs(values['seed']) >= 2**31:
        raise UserError(f'config.seed: expected a whole number below 2**31, got {values["seed"]!r}')
    if not fits(values['methods'], tuple):
        raise UserError(f'config.methods: expected names in parentheses, such as ("lora",), got {values["methods"]!r}')
    chosen = tuple(values['methods'])
    for name in chosen:
        choose(name, methods, 'config.methods')
        if not isinstance(values.get(name) or {}, Mapping):
            raise UserError(f'config.{name} must be a section of settings, got {values[name]!r}')
    return Config(
        task=values['task'],
        model=values['model'],
        data=values['data'],
        optimizer={group: read_optimizer(group, section) for group, section in values['optimizer'].items()},
        methods=chosen,
        settings={name: values.get(name) or {} for name in chosen},
        mesh=unpack(MeshSettings, values['mesh'], 'mesh'),
        train=unpack(TrainSettings, values['train'], 'train'),
        expected={split: read_ranges(split, metrics) for split, metrics in expected_of(values).items()},
        seed=values['seed'],
    )


def expected_of(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the expected ranges; {} where a user's files are read in place of the set that they are of."""
    data = values['data']
    replaced = data.get('name') and data.get('reader', '') not in ('', 'tfds')
    return {} if replaced else values['expected']


def read_optimizer(group: str, section: Any) -> OptimizerSettings:
    """Returns the optimizer settings of one group; messages name the group."""
    if not isinstance(section, Mapping):
        raise UserError(f'config.optimizer.{group} must be a section of settings, got {section!r}')
    try:
        return unpack(OptimizerSettings, section, f'optimizer.{group}')
    except UserError as error:
        text = str(error)
        raise UserError(text if group in text else text.replace('optimizer.', f'optimizer.{group}.', 1)) from None


def read_ranges(split: str, metrics: Any) -> dict[str, tuple[float, float]]:
    """Returns {metric: (low, high)} of one split; a UserError for anything that is not a range."""
    ranges = {}
    for name, pair in metrics.items() if isinstance(metrics, Mapping) else [('', metrics)]:
        where = f'config.expected.{split}.{name}'.rstrip('.')
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(fits(each, float) for each in pair)):
            raise UserError(f'{where}: expected a range (low, high), got {pair!r}')
        if pair[0] > pair[1]:
            raise UserError(f'{where}: the low end {pair[0]} is above the high end {pair[1]}')
        ranges[name] = (float(pair[0]), float(pair[1]))
    return ranges


def to_json(config: Config) -> str:
    """Returns the resolved config as JSON: enough to run it again."""
    values = dataclasses.asdict(config)
    values.update(values.pop('settings'))
    return json.dumps(values, indent=2)


def stored_values(file: epath.Path) -> dict[str, Any]:
    """Returns what `to_json` wrote into a file.

    Raises:
      UserError: where the file is damaged.
    """
    try:
        values = json.loads(file.read_text())
    except ValueError:
        raise UserError(f'{file} is damaged: put back what it held, or use another --workdir') from None
    data = values.get('data') if isinstance(values, dict) else None
    if isinstance(data, dict) and data.get('name') and not data.get('reader') and '.' not in data['name']:
        for name in ('validation_fraction', 'test_fraction'):  # version 0.1 stored and ignored them beside a set
            data.pop(name, None)
    return values


def override(config: ml_collections.ConfigDict, assignments: Mapping[str, str]) -> None:
    """Sets dotted keys ('train.steps') from text, in place; the present value gives the type.

    Raises:
      UserError: for a key that is not there (names the nearest) or a text that is not of the key's type.
    """
    for dotted, text in assignments.items():
        walk = [config]
        parts = dotted.split('.')
        for depth, part in enumerate(parts):
            section = walk[-1]
            if not isinstance(section, ml_collections.ConfigDict) or part not in section:
                known = list(section) if isinstance(section, ml_collections.ConfigDict) else []
                where = '.'.join(['config', *parts[: depth + 1]])
                raise UserError(f'--{where}: there is no such setting; {nearest(part, known)}')
            walk.append(section[part])
        if isinstance(walk[-1], ml_collections.ConfigDict):
            raise UserError(f'--config.{dotted} is a section; set one of: {", ".join(walk[-1])}')
        section[parts[-1]] = parse(text, walk[-1], dotted)


def parse(text: str, present: Any, dotted: str) -> Any:
    """Returns `text` as a value of the type of `present`."""
    try:
        if isinstance(present, bool):
            return {'true': True, '1': True, 'false': False, '0': False}[text.lower()]
        if isinstance(present, int):
            return int(text) if re.fullmatch(r'[+-]?\d+', text.replace('_', '')) else int_of(float(text))
        if isinstance(present, float):
            return float(text)
        if isinstance(present, tuple):
            return parse_tuple(text)
    except (KeyError, ValueError, SyntaxError, OverflowError):
        kind = type(present).__name__
        raise UserError(f'--config.{dotted}={text}: expected {kind}, as the present value {present!r}') from None
    return text


def int_of(value: float) -> int:
    """Returns a whole float (1e4) as an int; raises a ValueError otherwise."""
    if value != int(value):
        raise ValueError(value)
    return int(value)


def parse_tuple(text: str) -> tuple:
    """Returns "a,b", "64,32", "('a', 'b')" or "[1, 2]" as a tuple; an empty text is the empty tuple."""
    text = text.strip()
    if not text.strip('()[] '):
        return ()
    if text[0] in '([\'"':
        value = ast.literal_eval(text)
        return tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return tuple(number_or_text(part.strip()) for part in text.split(',') if part.strip())


def number_or_text(text: str) -> int | float | str:
    """Returns a number where the text is one, the text otherwise."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
