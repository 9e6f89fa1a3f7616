"""Fetching over HTTP from a server on this machine, from mirrors and folders: what arrives, and what is refused."""

import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import threading

import pytest

from research.data import download, fetch
from research.data.public_sets import all_sources
from research.data.source import File, Source
from research.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
CONTENT = bytes(range(256)) * 4000  # 1 MB


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`, with ranges; `server.cut` bytes of the first answer of each path, if it is not 0."""

    protocol_version = 'HTTP/1.1'

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get('Range')))
        content = server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        match = re.match(r'bytes=(\d+)-$', self.headers.get('Range') or '')
        start = int(match[1]) if match and server.ranges else 0
        if start and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
        body = content[start:]
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        if server.cut:
            body, server.cut, self.close_connection = body[: server.cut], 0, True
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """A server on 127.0.0.1 with `files` {path: content}; it notes `requests`."""
    for name in ('http_proxy', 'HTTP_PROXY', 'all_proxy', 'ALL_PROXY'):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        running.files, running.requests, running.cut, running.ranges = {}, [], 0, True
        running.url = f'http://127.0.0.1:{running.server_port}'
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch, request):
    """An empty cache folder; the folder of the data sets in it is given."""
    if 'data' in request.fixturenames:
        request.getfixturevalue('data')  # it reads TESSERA_DATA
    for name in ('TESSERA_DATA', 'TESSERA_MIRROR', 'TESSERA_FETCH'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache' / 'tessera' / 'data'


def file_of(url, content=CONTENT, path='rows.txt', **settings):
    return File(path, url, hashlib.sha256(content).hexdigest(), len(content), **settings)


def source_of(*files, name='tiny', **settings):
    return Source(name, 'CC0', 'https://example.org', files, **settings)


def tar_of(members, compressed=True):
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode='w:gz' if compressed else 'w') as archive:
        for number, (name, content) in enumerate(members.items()):
            header = tarfile.TarInfo(name)
            header.size, header.mtime, header.uname = len(content), 1000 + number, 'someone'
            archive.addfile(header, io.BytesIO(content))
    return data.getvalue()


def test_a_set_is_fetched_once_checked_and_says_what_it_is(server, cache, capsys):
    server.files = {'/a': CONTENT, '/b': b'second'}
    source = source_of(file_of(f'{server.url}/a'), file_of(f'{server.url}/b', b'second', 'below/second.txt'))
    folder = fetch.fetch(source)
    assert folder == str(cache / 'tiny') and pathlib.Path(folder, 'rows.txt').read_bytes() == CONTENT
    assert pathlib.Path(folder, 'below/second.txt').read_bytes() == b'second'
    shown = capsys.readouterr()
    assert 'fetching tiny, 1.0 MB, from https://example.org' in shown.err and 'licence: CC0' in shown.err
    assert not shown.out
    assert fetch.fetch(source) == folder and len(server.requests) == 2
    assert not capsys.readouterr().err
    assert {path.name for path in cache.rglob('*') if path.is_file()} <= {'rows.txt', 'second.txt', '.lock'}


def test_a_file_that_was_damaged_in_the_cache_is_fetched_again(server, cache):
    server.files = {'/a': CONTENT}
    source = source_of(file_of(f'{server.url}/a'))
    file = pathlib.Path(fetch.fetch(source), 'rows.txt')
    file.write_bytes(CONTENT[:-1] + b'?')
    assert pathlib.Path(fetch.fetch(source), 'rows.txt').read_bytes() == CONTENT and len(server.requests) == 2


@pytest.mark.parametrize('served, message', [
    (CONTENT[:-1] + b'?', 'unexpected content .SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}'),
    (CONTENT[:-9], 'has 1,023,991 bytes, expected 1,024,000'),
    (CONTENT + b'more', r'has more bytes than expected .1,024,000'),
    (None, 'answers 404'),
])  # fmt: skip
def test_what_is_not_the_recorded_file_is_refused_and_nothing_is_left(server, cache, served, message):
    server.files = {} if served is None else {'/a': served}
    source = source_of(file_of(f'{server.url}/a'))
    with pytest.raises(UserError, match=message) as caught:
        fetch.fetch(source)
    text = str(caught.value)
    assert f'{server.url}/a' in text and source.files[0].sha256 in text and str(cache / 'tiny') in text
    assert not [path for path in cache.rglob('*') if path.is_file() and path.name != '.lock']


def test_a_transfer_that_breaks_off_goes_on_from_there(server, cache):
    server.files, server.cut = {'/a': CONTENT}, 300_000
    folder = fetch.fetch(source_of(file_of(f'{server.url}/a')))
    assert pathlib.Path(folder, 'rows.txt').read_bytes() == CONTENT
    (_, first), (_, second) = server.requests
    assert first is None and 0 < int(second.removeprefix('bytes=').removesuffix('-')) <= 300_000


def test_a_part_that_was_left_is_resumed_and_a_wrong_one_is_thrown_away(server, cache):
    server.files = {'/a': CONTENT}
    source = source_of(file_of(f'{server.url}/a'))
    part = cache / 'tiny' / 'rows.txt.part'
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    fetch.fetch(source)
    assert server.requests == [('/a', 'bytes=1000-')] and not part.exists()
    (cache / 'tiny' / 'rows.txt').unlink()
    part.write_bytes(b'?' * 1000)
    assert pathlib.Path(fetch.fetch(source), 'rows.txt').read_bytes() == CONTENT
    assert [ranges for _, ranges in server.requests] == ['bytes=1000-', 'bytes=1000-', None]


def test_a_server_without_ranges_sends_everything_again(server, cache):
    server.files, server.cut, server.ranges = {'/a': CONTENT}, 300_000, False
    assert pathlib.Path(fetch.fetch(source_of(file_of(f'{server.url}/a'))), 'rows.txt').read_bytes() == CONTENT


def test_members_of_an_archive_are_packed_anew_whatever_its_compression(server, cache):
    members = {'repo-1/sounds/b.wav': b'bb', 'repo-1/sounds/a.wav': b'a', 'repo-1/README': b'words'}
    (pathlib.Path(cache).parent).mkdir(parents=True)
    plain = cache.parent / 'expected.tar'
    with tarfile.open(plain, 'w', format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (('sounds/a.wav', b'a'), ('sounds/b.wav', b'bb')):
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    expected = plain.read_bytes()
    for number, compressed in enumerate((True, False)):
        server.files = {'/x.tar.gz': tar_of(members, compressed)}
        settings = {'path': 'sounds.tar', 'members': r'sounds/[^/]+\.wav$', 'transfer': 100_000}
        source = source_of(file_of(f'{server.url}/x.tar.gz', expected, **settings), name=f'set{number}')
        assert pathlib.Path(fetch.fetch(source), 'sounds.tar').read_bytes() == expected
    server.files = {'/x.tar.gz': tar_of(members)[:-40]}
    with pytest.raises(UserError, match='not a valid archive'):
        fetch.fetch(source._replace(name='broken'))
    server.files = {'/x.tar.gz': tar_of({'sounds/c.wav': b'c'})}
    with pytest.raises(UserError, match='unexpected content'):
        fetch.fetch(source._replace(name='other'))


@pytest.mark.parametrize('by_url', [True, False])
def test_a_mirror_is_used_in_place_of_the_origin_plain_or_compressed(server, cache, tmp_path, monkeypatch, by_url):
    files = {'tiny/rows.txt': CONTENT, 'tiny/more.txt.gz': gzip.compress(b'more')}
    for path, content in files.items():
        (tmp_path / 'mirror' / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / 'mirror' / path).write_bytes(content)
    server.files = {f'/mirror/{path}': content for path, content in files.items()}
    monkeypatch.setenv('TESSERA_MIRROR', f'{server.url}/mirror/' if by_url else str(tmp_path / 'mirror'))
    source = source_of(file_of(f'{server.url}/a'), file_of(f'{server.url}/b', b'more', 'more.txt'))
    folder = pathlib.Path(fetch.fetch(source))
    assert (folder / 'rows.txt').read_bytes() == CONTENT and (folder / 'more.txt').read_bytes() == b'more'
    assert not {'/a', '/b'} & {path for path, _ in server.requests}
    with pytest.raises(UserError, match='answers 404' if by_url else 'there is no file'):
        fetch.fetch(source._replace(name='other'))


def test_offline_one_message_says_what_to_put_where(cache, monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    source = source_of(file_of('http://127.0.0.1:9/a'), file_of('http://127.0.0.1:9/b', b'b', 'b.txt'))
    with pytest.raises(UserError) as caught:
        fetch.fetch(source)
    text = str(caught.value)
    assert 'no connection to http://127.0.0.1:9/a' in text and 'refused' in text and 'Traceback' not in text
    for word in ('http://127.0.0.1:9/b', *(file.sha256 for file in source.files), str(cache / 'tiny'), 'TESSERA_DATA'):
        assert word in text
    for name, content in (('rows.txt', CONTENT), ('b.txt', b'b')):
        (cache / 'tiny' / name).write_bytes(content)
    assert fetch.fetch(source) == str(cache / 'tiny')


def test_nothing_is_fetched_where_it_is_forbidden(server, cache, monkeypatch):
    server.files = {'/a': CONTENT}
    monkeypatch.setenv('TESSERA_FETCH', '0')
    with pytest.raises(UserError, match='--nofetch'):
        fetch.fetch(source_of(file_of(f'{server.url}/a')))
    assert not server.requests and not cache.exists()


def test_a_file_put_there_by_hand_may_be_compressed(cache):
    source = source_of(file_of('http://127.0.0.1:9/a'))
    (cache / 'tiny').mkdir(parents=True)
    (cache / 'tiny' / 'rows.txt.gz').write_bytes(gzip.compress(CONTENT))
    assert pathlib.Path(fetch.fetch(source), 'rows.txt').read_bytes() == CONTENT


def test_a_folder_of_the_user_is_taken_as_it_is(server, cache, tmp_path, monkeypatch):
    server.files = {'/a': CONTENT}
    source = source_of(file_of(f'{server.url}/a'), prepared=('rows.npy',))
    root = tmp_path / 'mine'
    for name in ('rows.txt', 'rows.txt.gz', 'rows.npy'):
        shutil.rmtree(root, ignore_errors=True)
        (root / 'tiny').mkdir(parents=True)
        (root / 'tiny' / name).write_bytes(b'my own edition')
        monkeypatch.setenv('TESSERA_DATA', f'{root}/')
        assert fetch.fetch(source) == fetch.folder_of(source) == str(root / 'tiny')
    assert not server.requests and os.listdir(root / 'tiny') == ['rows.npy']
    (root / 'tiny' / 'rows.npy').unlink()
    assert fetch.fetch(source) == str(root / 'tiny') and (root / 'tiny' / 'rows.txt').read_bytes() == CONTENT
    assert not cache.exists()


def test_a_folder_that_is_read_only_is_not_written(server, cache, tmp_path, monkeypatch):
    server.files = {'/a': CONTENT}
    root = tmp_path / 'mine'
    root.mkdir()
    root.chmod(0o555)
    monkeypatch.setenv('TESSERA_DATA', str(root))
    assert fetch.fetch(source_of(file_of(f'{server.url}/a'))) == str(cache / 'tiny') and not os.listdir(root)


def test_a_read_only_cache_is_read_and_otherwise_named(server, cache, monkeypatch):
    server.files = {'/a': CONTENT}
    source = source_of(file_of(f'{server.url}/a'))
    folder = fetch.fetch(source)
    (cache / 'tiny' / '.lock').unlink(missing_ok=True)

    def refused(path, *_, **__):
        raise PermissionError(13, 'Permission denied', str(path))

    monkeypatch.setattr(os, 'makedirs', refused)
    monkeypatch.setattr(os, 'mkdir', refused)
    assert fetch.fetch(source) == folder
    with pytest.raises(UserError, match='other: Permission denied(?s:.*)put these files into'):
        fetch.fetch(source._replace(name='other'))


def test_a_full_disk_is_one_message(server, cache, monkeypatch):
    server.files = {'/a': CONTENT}

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(download, 'copy', full)
    with pytest.raises(UserError, match='No space left on device'):
        fetch.fetch(source_of(file_of(f'{server.url}/a')))


PROGRAM = """
import json, sys
from research.data.fetch import File, Source, fetch
print(fetch(Source('tiny', 'CC0', 'https://example.org', (File(*json.loads(sys.argv[1])),))))
"""


def test_of_two_processes_one_fetches_and_the_other_waits(server, cache, monkeypatch):
    arrived, go = threading.Event(), threading.Event()

    class Slow(dict):
        def get(self, path):
            arrived.set()
            go.wait(30)
            return CONTENT

    server.files = Slow()
    command = [sys.executable, '-c', PROGRAM, json.dumps(file_of(f'{server.url}/a'))]
    start = functools.partial(subprocess.Popen, command, stdout=-1, stderr=-1, text=True, cwd=ROOT)
    with start() as first:
        assert arrived.wait(30)
        with start() as second:
            waiting = second.stderr.readline()
            go.set()
            outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert 'waiting for another process' in waiting and 'fetching tiny' in outputs[0][1]
    assert [output.strip() for output, _ in outputs] == [str(cache / 'tiny')] * 2
    assert len(server.requests) == 1 and (cache / 'tiny' / 'rows.txt').read_bytes() == CONTENT


def test_the_cache_folder_needs_no_home(tmp_path, monkeypatch):
    assert fetch.cache_folder() == tmp_path / 'cache' / 'tessera'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert fetch.cache_folder().is_relative_to(tmp_path)
    monkeypatch.delenv('HOME')
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)  # a user without an entry in the password file
    assert fetch.cache_folder().is_absolute() and 'tessera' in fetch.cache_folder().name


def test_sources_are_pinned_and_complete():
    sources = all_sources()
    assert {'sst2', 'esc10', 'multi30k', 'squad', 'set5_set14'} <= set(sources)
    for name, source in sources.items():
        assert source.licence and source.homepage.startswith('https://') and source.files, name
        assert len({file.path for file in source.files}) == len(source.files), name
        for file in source.files:
            assert re.fullmatch('[0-9a-f]{64}', file.sha256) and file.size > 0, file
            assert re.match(r'https://(raw\.githubusercontent|github)\.com/', file.url), file
            assert re.search('/[0-9a-f]{40}(/|.tar.gz$)', file.url), file
            assert not file.members or re.compile(file.members) and file.transfer, file


def official_packing(data, mirror):
    """Makes a mirror whose pictures of Fashion-MNIST are packed as their authors did, which `data` need not have."""
    times = {'train-images-idx3-ubyte': 1504176606, 't10k-images-idx3-ubyte': 1504176627}
    for folder in data.iterdir():
        if folder.name != 'fashion_mnist':
            (mirror / folder.name).symlink_to(folder)
    (mirror / 'fashion_mnist').mkdir()
    for file in (data / 'fashion_mnist').iterdir():
        name = file.name.removesuffix('.gz')
        if name not in times:
            (mirror / 'fashion_mnist' / file.name).symlink_to(file)
            continue
        content = gzip.decompress(file.read_bytes())
        packed = subprocess.run(['gzip', '-n', '-6'], input=content, capture_output=True, check=True).stdout
        head = b'\x1f\x8b\x08\x08' + times[name].to_bytes(4, 'little') + b'\x00\x03' + name.encode() + b'\0'
        (mirror / 'fashion_mnist' / file.name).write_bytes(head + packed[10:])


# Of these the benchmark folder has prepared copies, or nothing.
ELSEWHERE = {'compas', 'esc10', 'penn_fudan', 'an4', 'speech_samples', 'squad_train', 'train400'}


@pytest.mark.data
def test_every_set_is_fetched_from_a_mirror_of_the_benchmark_data(data, tmp_path, cache, monkeypatch):
    if not shutil.which('gzip'):
        pytest.skip('needs the program gzip')
    (tmp_path / 'mirror').mkdir()
    official_packing(data, tmp_path / 'mirror')
    monkeypatch.setenv('TESSERA_MIRROR', str(tmp_path / 'mirror'))
    here = {name: source for name, source in all_sources().items() if name not in ELSEWHERE}
    for name, source in here.items():
        assert not fetch.missing_files(fetch.fetch(source), source), name
    assert sum(len(source.files) for source in here.values()) > 60
