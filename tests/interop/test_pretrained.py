"""A task that starts from pretrained weights, the hub's revision pinned, and the hub out of reach."""

import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import threading
import types

import jax
import numpy as np
import pytest
from etils import epath
from tokenizers import Tokenizer

from research.core.startup import load_weights
from research.data.text.corpus import END
from research.errors import UserError
from research.interop import pretrained, weights
from research.methods import lora
from research.tasks import language_model

FOLDER = pathlib.Path(__file__).parent / 'fixtures'
TASK = {'name': 'language_model', 'vocabulary': 99, 'length': 16, 'max_new_tokens': 4, 'prompts': ('hello ',)}
COMMIT = '0123456789abcdef0123456789abcdef01234567'


def config(**model):
    return types.SimpleNamespace(
        task=TASK, model={'width': 160, 'layers': 3, 'dropout': 0.1, 'scan': True, 'revision': '', **model},
        data={'name': 'python_source', 'megabytes': 0.02},
    )  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A language model's config with GPT-2's folder in one line, and its prepared folder."""
    folder = epath.Path(tmp_path_factory.mktemp('prepared'))
    settings = config(weights=str(FOLDER / 'gpt2'))
    language_model.prepare(settings, folder)
    return settings, folder


@pytest.mark.slow
def test_a_language_model_starts_from_a_folder(run):
    task, expected = language_model.make(*run), weights.read(FOLDER / 'gpt2')
    variables, report = load_weights(task.load(), jax.jit(task.init)(jax.random.key(0)))
    assert 'are not' not in str(report) and 'other shape' not in str(report)
    jax.tree.map(np.testing.assert_array_equal, variables.params['model'], expected.params)
    assert task.generate.end == (expected.tokenizer.token_to_id(END),)
    tokens = task.encode({'text': 'hello'})
    assert tokens['tokens'][: tokens['length']].tolist() == expected.tokenizer.encode('hello').ids


@pytest.mark.slow
def test_adapters_go_on_the_loaded_weights(run):
    task = lora.apply(language_model.make(*run), lora.Settings(rank=2))
    variables, report = load_weights(task.load(), jax.jit(task.init)(jax.random.key(0)))
    jax.tree.map(np.testing.assert_array_equal, variables.params['model_base'], weights.read(FOLDER / 'gpt2').params)
    assert set(variables.params['model']['blocks']['attention']['query']['kernel']) == {'a', 'b'}


def test_sizes_are_the_weights_and_choices_the_config_s(run):
    settings, folder = run
    shape = pretrained.read_shape(settings.model, folder, vocabulary=99, length=16)
    assert (shape.width, shape.layers, shape.vocabulary, shape.length) == (16, 2, 300, 24)
    assert shape.dropout == 0.1 and shape.scan and shape.embedding_dropout == 0.1
    about = json.loads((folder / 'weights.json').read_text())
    assert about['name'] == str((FOLDER / 'gpt2').resolve()) and about['revision'] == '' and about['family'] == 'gpt2'
    with pytest.raises(UserError, match='config.task.length asks for 25 positions, and .* has 24: lower it'):
        pretrained.read_shape(settings.model, folder, vocabulary=99, length=25)
    with pytest.raises(UserError, match='config.model.widht'):
        pretrained.read_shape({**settings.model, 'widht': 3}, folder, vocabulary=99, length=16)


def test_without_weights_nothing_changes(tmp_path):
    model = {'weights': '', 'revision': '', 'width': 32}
    assert pretrained.store(model, epath.Path(tmp_path), 'decoder') is None and not list(tmp_path.iterdir())
    assert pretrained.make_load(model, epath.Path(tmp_path)) is None
    assert pretrained.read_shape(model, epath.Path(tmp_path), vocabulary=9, length=4).width == 32
    with pytest.raises(UserError, match='config.model.revision'):
        pretrained.store({'revision': 'main'}, epath.Path(tmp_path), 'decoder')


def test_weights_may_stand_below_a_path(run):
    variables = pretrained.make_load(*(run[0].model, run[1]), path='text/encoder')()
    assert set(variables.params['model']['text']['encoder']) == {'tokens', 'positions', 'blocks', 'final_norm'}


def test_streams_need_a_byte_level_tokenizer_with_an_end(tmp_path):
    with pytest.raises(UserError, match='is an encoder .*this task needs a decoder'):
        pretrained.stream_tokenizer({'weights': str(FOLDER / 'bert')}, epath.Path(tmp_path))
    shutil.copytree(FOLDER / 'llama', tmp_path / 'llama')
    lines = (FOLDER / 'bert' / 'vocab.txt').read_text(encoding='utf-8').splitlines()[:40]
    (tmp_path / 'llama' / 'vocab.txt').write_text('\n'.join(lines), encoding='utf-8')
    with pytest.raises(UserError, match='not byte-level'):
        pretrained.stream_tokenizer({'weights': str(tmp_path / 'llama')}, epath.Path(tmp_path))
    with pytest.raises(UserError, match='has none of tokenizer.json'):
        pretrained.stream_tokenizer({'weights': str(FOLDER / 'llama')}, epath.Path(tmp_path))
    described = json.loads(weights.read(FOLDER / 'gpt2').tokenizer.to_str().replace(END, '<|end_of_text|>'))
    tokenizer = pretrained.renamed(described, '<|end_of_text|>', END)
    assert isinstance(tokenizer, Tokenizer) and tokenizer.token_to_id('<|end_of_text|>') is None
    assert tokenizer.encode(f'hello{END}').ids[-1] == tokenizer.token_to_id(END)


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers as the hub does for one repository, 'someone/tiny', with GPT-2's folder."""

    def log_message(self, *arguments):
        """Prints nothing."""

    def do_HEAD(self):  # noqa: N802
        """Answers what a file is."""
        self.answer(False)

    def do_GET(self):  # noqa: N802
        """Answers a file, or what the repository holds."""
        self.answer(True)

    def answer(self, whole):
        """Sends the description of the repository, a file, or 404."""
        path = self.path.split('?')[0]
        names = [file.name for file in (FOLDER / 'gpt2').iterdir()]
        if path.startswith('/api/models/someone/tiny'):
            siblings = [{'rfilename': name} for name in names]
            tree = [{'type': 'file', 'path': name, 'size': 1, 'oid': name} for name in names]
            about = {'id': 'someone/tiny', 'modelId': 'someone/tiny', 'sha': COMMIT, 'siblings': siblings, 'tags': []}
            body = json.dumps(tree if '/tree/' in path else about).encode()
        elif path.startswith(f'/someone/tiny/resolve/{COMMIT}/') and path.rsplit('/', 1)[1] in names:
            body = (FOLDER / 'gpt2' / path.rsplit('/', 1)[1]).read_bytes()
        else:
            body = None
        self.send_response(404 if body is None else 200)
        self.send_header('X-Repo-Commit', COMMIT)
        self.send_header('ETag', f'"{path.rsplit("/", 1)[1]}"')
        self.send_header('Content-Length', str(len(body or b'')))
        if body is None:
            self.send_header('X-Error-Code', 'RepoNotFound')
        self.end_headers()
        if whole and body:
            self.wfile.write(body)


PROGRAM = """
import sys
from etils import epath
from research.errors import UserError
from research.interop import pretrained
folder = epath.Path(sys.argv[1])
for name in sys.argv[2:]:
    try:
        pretrained.store({'weights': name}, folder, 'decoder')
        loaded = pretrained.make_load({'weights': name}, folder)()
        print((folder / 'weights.json').read_text(), sorted(loaded.params['model']))
    except UserError as error:
        print('UserError', error)
"""


def ask(folder, endpoint, *names):
    """Returns what a fresh process prints: the hub's address is read when it is imported."""
    environment = {
        'HF_ENDPOINT': endpoint, 'HF_HOME': str(folder / 'cache'), 'JAX_PLATFORMS': 'cpu', 'PATH': '/usr/bin:/bin',
        'HF_HUB_DISABLE_XET': '1',
    }  # fmt: skip
    command = [sys.executable, '-c', PROGRAM, str(folder), *names]
    done = subprocess.run(
        command, env=environment, cwd=FOLDER.parents[2], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_hub_s_revision_is_pinned_and_a_hub_out_of_reach_is_one_message(tmp_path):
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f'http://127.0.0.1:{server.server_port}'
    try:
        found = ask(tmp_path, endpoint, 'someone/tiny', 'someone/other')
        assert f'"revision": "{COMMIT}"' in found and '"name": "someone/tiny"' in found
        assert "['blocks', 'final_norm', 'positions', 'tokens']" in found
        assert "UserError config.model.weights='someone/other'" in found and 'no such public repository' in found
    finally:
        server.shutdown()
        server.server_close()
    found = ask(tmp_path, endpoint, 'someone/else', 'someone/tiny')  # the second lies in the cache
    assert found.startswith('UserError') and 'could not be reached' in found
    assert f'"revision": "{COMMIT}"' in found
