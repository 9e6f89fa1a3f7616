"""The digits classifier runs from its exported ONNX folder in a headless browser."""

import functools
import http.server
import os
import pathlib
import shutil
import threading
import types

import jax
import pytest
from etils import epath

pytest.importorskip('jax2onnx', reason='launch/foreign.txt is not installed')
sync_api = pytest.importorskip('playwright.sync_api', reason='playwright is not installed')

from research import api  # noqa: E402
from research.export import onnx  # noqa: E402
from research.export.folder import write_folder  # noqa: E402
from research.export.programs import read_source  # noqa: E402

RUNTIME = pathlib.Path(os.environ.get('TESSERA_NODE_MODULES', 'absent')) / 'onnxruntime-web' / 'dist'
PAGE = """<!doctype html><script type="module">
import * as ort from './ort/ort.wasm.min.mjs';
import {check} from './folder/run.mjs';
const get = async (file) => (await fetch(`./folder/${file}`)).arrayBuffer();
try { window.result = await check(ort, get); } catch (error) { window.result = {failed: String(error)}; }
</script>"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, '.mjs': 'text/javascript'}

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    """The address of a page beside the exported folder and the runtime."""
    if not RUNTIME.is_dir():
        pytest.skip('onnxruntime-web is absent: set TESSERA_NODE_MODULES to a folder node_modules with it')
    folder, workdir = tmp_path_factory.mktemp('site'), epath.Path(tmp_path_factory.mktemp('digits'))
    config = api.read('configs/digits.py:tiny')
    (workdir / 'prepared').mkdir()
    api.prepare(config, workdir / 'prepared')
    task = api.build(config, workdir / 'prepared')
    model = types.SimpleNamespace(
        config=config, task=task, variables=task.init(jax.random.key(0)), step=0, workdir=workdir
    )
    write_folder(read_source(model), 'onnx', onnx.export, folder / 'folder')
    (folder / 'ort').symlink_to(RUNTIME)
    (folder / 'index.html').write_text(PAGE)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_address[1]}/'
    server.shutdown()


@pytest.mark.slow
def test_the_answers_in_the_browser_are_those_of_the_model(site):
    path = shutil.which('chromium')
    if not path:
        pytest.skip('chromium is absent')
    with sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=path, args=['--no-sandbox', '--disable-gpu'])
        page = browser.new_page()
        page.goto(site)
        page.wait_for_function('window.result', timeout=60_000)
        result = page.evaluate('window.result')
        browser.close()
    assert 'failed' not in result, result
    print(result)
    assert result['error'] <= 1e-5 and result['milliseconds'] <= 1000  # 50 ms on a machine without other work
