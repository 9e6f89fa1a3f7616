"""The files of the page: their weight, their policy, their colours, and the words of both languages."""

import gzip
import json
import pathlib
import re
import shutil
import subprocess

import pytest

from research.serve.page import HEADERS, page_files

FOLDER = pathlib.Path(__file__).parent.parent.parent / 'research' / 'serve' / 'page'
SCRIPTS = sorted(FOLDER.glob('*.js'))


def test_a_browser_loads_at_most_60_kb():
    bodies = [file.response('gzip, deflate, br')[1] for file in page_files().values()]
    assert sum(map(len, bodies)) <= 60_000


@pytest.mark.parametrize('accepts', ['', 'gzip, br'])
def test_responses_are_the_files(accepts):
    files = page_files()
    assert {'/', '/page/page.js', '/page/page.css', '/page/words.js'} <= files.keys()
    for address, file in files.items():
        headers, body = file.response(accepts)
        name = 'index.html' if address == '/' else address.removeprefix('/page/')
        plain = gzip.decompress(body) if headers.get('Content-Encoding') == 'gzip' else body
        assert plain == (FOLDER / name).read_bytes() and headers['Content-Length'] == str(len(body))
        assert headers.items() >= HEADERS.items() and (headers.get('Content-Encoding') == 'gzip') == bool(accepts)


def test_policy_allows_no_other_host_and_nothing_inline():
    policy = HEADERS['Content-Security-Policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy and 'http' not in policy
    html = (FOLDER / 'index.html').read_text('utf-8')
    assert not re.search(r'<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)', html)
    for path in (*SCRIPTS, FOLDER / 'index.html', FOLDER / 'page.css'):
        text = path.read_text('utf-8').replace('http://www.w3.org/2000/svg', '')
        assert not re.search(r'https?://|@import|innerHTML|insertAdjacentHTML|\beval\(', text), path.name


def test_colours_are_those_of_the_report():
    def colours(path: pathlib.Path) -> list[dict[str, str]]:
        roots = re.findall(r':root \{(.*?)\n *\}', path.read_text('utf-8'), re.S)
        return [dict(re.findall(r'--([\w-]+): (#\w+)', root)) for root in roots]

    report = colours(FOLDER.parent.parent / 'report' / 'report.css')
    page = colours(FOLDER / 'page.css')
    assert len(page) == 2 and len(page[0]) > 12
    for ours, theirs in zip(page, report, strict=True):
        assert ours.items() <= theirs.items()


@pytest.mark.skipif(not shutil.which('node'), reason='node is absent: the words are read with it')
def test_both_languages_have_the_same_words():
    code = f"import('{FOLDER / 'words.js'}').then((m) => console.log(JSON.stringify(m.words)))"
    command = ['node', '--no-warnings', '--experimental-default-type=module', '-e', code]
    words = json.loads(subprocess.run(command, text=True, capture_output=True, check=True).stdout)
    assert words['en'].keys() == words['zh'].keys()
    for key, text in words['en'].items():
        if key != 'names':
            assert set(re.findall(r'\{\w+\}', text)) == set(re.findall(r'\{\w+\}', words['zh'][key])), key
    keys = set()
    for path in (*SCRIPTS, FOLDER / 'index.html'):
        text = path.read_text('utf-8')
        keys.update(re.findall(r"""(?:\bt\(|\bt: |Problem\(|word\([^,'"]+, )'(\w+)'""", text))
        keys.update(re.findall(r'data-t="(\w+)"', text))
    assert len(keys) > 50 and keys <= words['en'].keys(), keys - words['en'].keys()
