"""Serves trained runs: a page for people, and routes for the clients of several protocols.

    python -m launch.serve --workdir=runs/digits
    python -m launch.serve --workdir=digits=runs/digits --workdir=lm=runs/python_lm --port=8080

Listens on this machine only. `--host=0.0.0.0` opens it to others, and then needs `--token_file` or the environment
variable TESSERA_TOKEN (or, on a network that you trust, --allow_anonymous). Ctrl+C stops it.
"""

import ast
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

import launch.flags
import research
from research.errors import UserError
from research.resolve import find_config

WORKDIR = flags.DEFINE_multi_string('workdir', [], 'The folder of a run, or NAME=FOLDER; repeatable.')
HOST = flags.DEFINE_string('host', '127.0.0.1', 'The address to listen on.')
PORT = flags.DEFINE_integer('port', 8000, 'The port; 0 chooses a free one.', lower_bound=0, upper_bound=65535)
SLOTS = flags.DEFINE_integer('slots', 0, 'Texts generated at the same time; 0: as many as fit.', lower_bound=0)
TOKEN_FILE = flags.DEFINE_string('token_file', '', 'A file with the token that clients must send.')
ANONYMOUS = flags.DEFINE_bool('allow_anonymous', False, 'Accept requests of other machines without a token.')
ALLOWED_HOSTS = flags.DEFINE_list('allowed_hosts', [], 'Names of this server besides localhost, for the Host header.')
MAX_BODY_MB = flags.DEFINE_float('max_body_mb', 10, 'The largest request, in MB.', lower_bound=0.001, upper_bound=1024)
TIMEOUT = flags.DEFINE_float('timeout', 120, 'The longest time of a request, in seconds.', lower_bound=0.1)
QUEUE = flags.DEFINE_integer('queue', 256, 'Requests of a model that wait or run; more are refused.', lower_bound=2)
MAX_BATCH = flags.DEFINE_integer('max_batch', 32, 'One-shot requests that run together.', lower_bound=1)
EXACT = flags.DEFINE_bool('exact', False, 'Always run whole batches: the same bits under load, slower alone.')

LOOPBACK = ('127.0.0.1', 'localhost', '::1')
MIN_TOKEN = 16  # characters


def read_token(file: str, environment: Mapping[str, str]) -> bytes:
    """The token of a file or of TESSERA_TOKEN; b'' if neither is given; raises UserError for an unusable one."""
    text = environment.get('TESSERA_TOKEN', '')
    if file:
        text = pathlib.Path(file).expanduser().read_text(encoding='utf-8')
    text = text.strip()
    if (file or text) and (len(text) < MIN_TOKEN or not text.isascii() or not text.isprintable() or ' ' in text):
        raise UserError(
            f'{file or "TESSERA_TOKEN"}: a token is one word of at least {MIN_TOKEN} letters and digits; make one with '
            "python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return text.encode()


def check_open(host: str, token: bytes, anonymous: bool) -> None:
    """Refuses to listen for other machines without a token."""
    if host not in LOOPBACK and not token and not anonymous:
        raise UserError(
            f'--host={host} lets other machines send requests: give --token_file or TESSERA_TOKEN, or '
            '--allow_anonymous on a network that you trust'
        )


def named_folders(values: Sequence[str]) -> dict[str, str]:
    """{name: folder} of the --workdir flags; raises UserError for none, or two of the same name."""
    from research.serve.card import model_name

    folders: dict[str, str] = {}
    for value in values:
        name, equals, folder = value.partition('=')
        if not equals or '/' in name or '\\' in name:
            name, folder = pathlib.PurePath(value.rstrip('/\\') or value).name, value
        name = model_name(name)
        if name in folders:
            raise UserError(f'--workdir: two models are named {name!r}; write --workdir=NAME={folder}')
        folders[name] = folder
    if not folders:
        raise UserError('--workdir is missing: name the folder of a run, for example --workdir=runs/digits')
    return folders


def about(config: str) -> str:
    """The first line of a config's header; '' if the config is not on this machine."""
    try:
        text = pathlib.Path(find_config(config.partition(':')[0])).read_text(encoding='utf-8')
        return (ast.get_docstring(ast.parse(text)) or '').split('\n', 1)[0]
    except (UserError, OSError, SyntaxError, ValueError):
        return ''


def greeting(models: Mapping[str, Any], address: str, seconds: float, token: bytes) -> str:
    """What is served, where to look at it, and one request to copy."""
    lines = [f'ready after {seconds:.1f} s']
    for name, hosted in models.items():
        card = hosted.card
        metrics = ', '.join(f'{key} {row["value"]:.4g}' for key, row in list(card['metrics'].items())[:2])
        sizes = '/'.join(map(str, hosted.programs.sizes))
        places = f'{hosted.engine.slots} texts at once' if hosted.engine else f'batches of {sizes}'
        trained = f'trained {card["trained"]}' if card['trained'] else ''
        details = ', '.join(filter(None, [card['task'], trained, metrics, places]))
        lines.append(f'  {name}: {details}')
    name, hosted = next(iter(models.items()))
    example = json.dumps({'inputs': next(iter(hosted.card['examples']), {})}, ensure_ascii=False)
    bearer = " -H 'Authorization: Bearer TOKEN'" if token else ''
    request = f"'{example}'" if len(example) <= 600 and "'" not in example else '@request.json'
    lines.append(f'open {address}/')
    lines.append(f"try  curl {address}/models/{name}/predict -H 'Content-Type: application/json'{bearer} -d {request}")
    return '\n'.join(lines)


def load_models(folders: Mapping[str, str], overrides: dict[str, str], shared: Any) -> dict[str, Any]:
    """Loads all runs."""
    from research.inference.engine import SLOTS, Engine, samples_texts
    from research.inference.features import feature_model
    from research.serve.card import card_of, config_of, stored
    from research.serve.hosted import Hosted

    models = {}
    loaded = {name: research.load(folder, overrides) for name, folder in folders.items()}
    os.environ['TESSERA_FETCH'] = '0'  # rows of a data set are shown as examples only if it is on this machine
    for name, model in loaded.items():
        line = about(config_of(stored(model, 'environment.json')))
        settings = (shared.server.max_batch, shared.server.exact, shared.server.slots, research.__version__)
        card = card_of(name, model, line, settings)
        slots = shared.server.slots or SLOTS
        engine = None
        if samples_texts(model.task):
            engine = Engine(model.task, model.variables, model.mesh, slots, shared.turn)
        models[name] = Hosted(name, model, shared, card, engine, feature_model(model))
    return models


def main(overrides: dict[str, str]) -> None:
    """Loads the runs and serves them until Ctrl+C or SIGTERM."""
    from research.extras import require

    started = time.perf_counter()
    for package in ('uvicorn', 'fastapi', 'prometheus_client', 'orjson'):
        require(package)
    from research.serve import run
    from research.serve.batcher import FairLock
    from research.serve.hosted import Shared
    from research.serve.metrics import make_metrics
    from research.serve.settings import ServerSettings

    token = read_token(TOKEN_FILE.value, os.environ)
    check_open(HOST.value, token, ANONYMOUS.value)
    folders = named_folders(WORKDIR.value)
    listener = run.open_socket(HOST.value, PORT.value)
    port = listener.getsockname()[1]
    names = tuple(name.strip().lower() for name in ALLOWED_HOSTS.value)
    server = ServerSettings(
        host=HOST.value, port=port, slots=SLOTS.value, token=token, allowed_hosts=names,
        max_body=int(MAX_BODY_MB.value * 2**20), timeout=TIMEOUT.value, queue=QUEUE.value, max_batch=MAX_BATCH.value,
        exact=EXACT.value, version=research.__version__,
    )  # fmt: skip
    say = functools.partial(print, file=sys.stderr, flush=True)
    metrics = make_metrics()
    shared = Shared(server, metrics, run.make_pool(), FairLock())
    models = load_models(folders, overrides, shared)
    host = f'[{HOST.value}]' if ':' in HOST.value else HOST.value
    address = f'http://{"localhost" if host in ("0.0.0.0", "[::]") else host}:{port}'

    def on_ready() -> None:
        say(greeting(models, address, time.perf_counter() - started, token))

    say(f'compiling {", ".join(models)} ...')
    run.run_server(run.make_server(models, server, metrics, say, on_ready, say), listener)


if __name__ == '__main__':
    launch.flags.run(main)
