"""What a client should know of a model: its inputs, its measured quality, and where it comes from."""

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from research.core.config import Config
from research.core.metrics import read_metrics
from research.core.task import Input, Task, Variables
from research.errors import UserError, name_of
from research.inference.model import Model
from research.serve.samples import example_inputs
from research.serve.values import input_json, plain, sound_file

NAME = re.compile(r'[a-z0-9_-]{1,64}')
MAX_EXAMPLE_BYTES = 200_000
SETTINGS = {'max_new_tokens': 'max_tokens', 'temperature': 'temperature', 'top_k': 'top_k', 'top_p': 'top_p'}


def model_name(text: str) -> str:
    """A name for URLs, from the name of a run's folder; raises UserError if nothing is left of it."""
    name = re.sub(r'[^a-z0-9_-]+', '-', text.lower()).strip('-')[:64]
    if not NAME.fullmatch(name):
        raise UserError(f'{text!r} gives no name of a model: write --workdir=NAME=FOLDER with letters and digits')
    return name


def fingerprint_of(config: Config, variables: Variables, extra: tuple[Any, ...] = ()) -> str:
    """A hash of the weights and of what determines the compiled programs.

    Equal fingerprints, requests and seeds give equal answers.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(variables)):
        array = np.ascontiguousarray(leaf)
        digest.update(f'{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n'.encode())
        digest.update(array.tobytes())
    task = {name: value for name, value in config.task.items() if name != 'name'}
    program = (name_of(config.task.get('name', '')), task, config.methods, jax.__version__, extra)
    digest.update(repr(program).encode())
    return digest.hexdigest()[:16]


def input_card(field: Input) -> dict[str, Any]:
    """One field of a request."""
    card: dict[str, Any] = {'kind': field.kind, 'shape': list(field.shape), 'limit': field.limit, 'about': field.about}
    card |= {'choices': list(field.choices)} if field.choices else {}
    return {**card, 'items': {name: input_card(item) for name, item in field.items.items()}} if field.items else card


def examples_of(task: Task) -> list[dict[str, Any]]:
    """Requests to try, as JSON; those that are too large are left out."""
    examples = []
    with contextlib.suppress(UserError):
        for raw in example_inputs(task):
            values = {}
            for name, value in raw.items():
                if name == 'rate':
                    continue
                if task.inputs[name].kind == 'audio' and not isinstance(value, bytes):
                    value = sound_file(value, int(raw.get('rate', 16_000)))
                values[name] = input_json(task.inputs[name], value)
            if len(json.dumps(values)) <= MAX_EXAMPLE_BYTES:
                examples.append(values)
    return examples


def stored(model: Model, name: str) -> dict[str, Any]:
    """A JSON file of the run; {} if it is missing or damaged."""
    try:
        value = json.loads((model.workdir / name).read_text())
        return value if isinstance(value, dict) else {}
    except (OSError, ValueError):
        return {}


def config_of(environment: Mapping[str, Any]) -> str:
    """The config that a run was started with, as 'configs/digits.py:tiny'; '' if the command does not name one."""
    try:
        arguments = shlex.split(environment.get('command', ''))
    except ValueError:
        return ''
    spec = next((word.partition('=')[2] for word in arguments if word.startswith('--config=')), '')
    path, colon, variant = spec.partition(':')
    parts = path.split('/')
    start = parts.index('configs') if 'configs' in parts else len(parts) - 1
    return '/'.join(parts[start:]) + colon + variant  # without the folders of the machine that trained it


def measured(model: Model) -> dict[str, Any]:
    """The metrics of the test split, or of the split that was measured instead."""
    entries = read_metrics(model.workdir)
    split = next((name for name in (model.config.train.test_split, 'test', *entries) if name in entries), None)
    metrics = entries[split]['metrics'] if split else {}
    main = model.config.expected.get(split or '', {})  # the metrics that its config expects are shown first
    metrics = {name: metrics[name] for name in (*filter(metrics.__contains__, main), *metrics)}
    return {
        name: {key: plain(row.get(key)) for key in ('value', 'baseline', 'better', 'about')}
        for name, row in metrics.items()
        if not isinstance(row.get('value'), list)
    }


def card_of(name: str, model: Model, about: str = '', extra: tuple[Any, ...] = ()) -> dict[str, Any]:
    """The JSON of `GET /models/NAME`.

    Args:
      name: the name of the model in URLs.
      model: the loaded run.
      about: one line on what it does.
      extra: what determines the compiled programs besides the config, for the fingerprint.
    """
    environment, data = stored(model, 'environment.json'), model.config.data
    settings = {ours: model.config.task[key] for key, ours in SETTINGS.items() if key in model.config.task}
    return {
        'name': name,
        'task': name_of(model.config.task.get('name', '')),
        'about': about,
        'inputs': {key: input_card(field) for key, field in model.task.inputs.items()},
        'generates': False,
        'settings': settings if model.task.generate else {},
        'metrics': measured(model),
        'trained': environment.get('finished', '').split(' ')[0],
        'step': model.step,
        'parameters': sum(leaf.size for leaf in jax.tree.leaves(model.variables.params)),
        'provenance': {
            'config': config_of(environment),
            'code': environment.get('commit', ''),
            'data': name_of(data.get('name', '')),
            'versions': environment.get('versions', {}),
        },
        'fingerprint': fingerprint_of(model.config, model.variables, extra),
        'examples': examples_of(model.task),
    }
