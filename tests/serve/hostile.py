"""Hostile requests: (name, bytes on the wire or an HTTP request, statuses that are right)."""

import base64
import io
import json
import struct
import wave
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

PREDICT = '/models/toy/predict'
REFUSED = (400, 404, 408, 413, 415, 421, 422, 431)


class Case(NamedTuple):
    """One hostile request by a client that speaks HTTP."""

    name: str
    body: bytes = b''
    statuses: tuple[int, ...] = (400,)
    path: str = PREDICT
    method: str = 'POST'
    headers: dict[str, str] = {}


def png(width: int, height: int, data: bytes = b'', depth: int = 8, color: int = 0) -> bytes:
    """A PNG whose header may lie."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + name + content + struct.pack('>I', zlib.crc32(name + content))

    header = struct.pack('>IIBBBBB', width, height, depth, color, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')


def gif(frames: int) -> bytes:
    """A GIF of many frames of one pixel."""
    frame = b'\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0'
    return b'GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff' + frame * frames + b';'


def wav(frames: int, rate: int = 16_000, channels: int = 1, claimed: int = -1) -> bytes:
    """A WAV file; `claimed` replaces the number of bytes in its header."""
    buffer = io.BytesIO()
    with wave.open(buffer, 'wb') as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(b'\0\0' * frames * channels)
    content = bytearray(buffer.getvalue())
    if claimed >= 0:
        content[40:44] = struct.pack('<I', claimed)
    return bytes(content)


def inputs(**fields: Any) -> bytes:
    """The body of a prediction."""
    return json.dumps({'inputs': fields}).encode()


def file(content: bytes) -> str:
    """Base64."""
    return base64.b64encode(content).decode()


def json_cases() -> Iterator[Case]:
    """JSON that breaks parsers."""
    yield Case('deep lists', b'[' * 100_000)
    yield Case('deep closed lists', b'[' * 5000 + b']' * 5000)
    yield Case('deep objects', b'{"a":' * 20_000 + b'1' + b'}' * 20_000)
    yield Case('deep inside inputs', b'{"inputs":{"text":' + b'[' * 40 + b']' * 40 + b'}}')
    yield Case('brackets in a string are no depth', inputs(text='[' * 1000), (200,))
    yield Case('a million values', b'[' + b'1,' * 300_000 + b'1]', (413,))
    yield Case('a hundred thousand keys', b'{' + b','.join(b'"%d":1' % n for n in range(100_001)) + b'}', (413,))
    yield Case('NaN', b'{"inputs":{"count":NaN}}')
    yield Case('infinity', b'{"inputs":{"count":Infinity}}')
    yield Case('minus infinity', b'{"inputs":{"features":[-Infinity,1,2]}}')
    yield Case('too large a number', b'{"inputs":{"count":1e999}}')
    yield Case('large number', b'{"inputs":{"count":1e308}}')
    yield Case('integer of 5000 digits', b'{"inputs":{"count":' + b'9' * 5000 + b'}}')
    yield Case('long fraction', b'{"inputs":{"count":0.' + b'1' * 100_000 + b'}}', (200, 400))
    yield Case('lone surrogate', b'{"inputs":{"text":"\\ud800"}}')
    yield Case('lone low surrogate', b'{"inputs":{"text":"a\\udfffb"}}')
    yield Case('lone surrogate in a key', b'{"inputs":{"\\ud83d":1}}', (400, 422))
    yield Case('surrogate pair', b'{"inputs":{"text":"\\ud83d\\ude00"}}', (200,))
    yield Case('duplicate keys', b'{"inputs":{"text":"a"},"inputs":{"text":"b"}}')
    yield Case('duplicate inner keys', b'{"inputs":{"text":"a","text":"b"}}')
    yield Case('invalid UTF-8', b'{"inputs":{"text":"\xff\xfe"}}')
    yield Case('overlong UTF-8', b'{"inputs":{"text":"\xc0\xaf"}}')
    yield Case('UTF-16', '{"inputs":{}}'.encode('utf-16'))
    yield Case('byte order mark', b'\xef\xbb\xbf{"inputs":{}}', (200, 400))
    yield Case('null character', b'{"inputs":{"text":"\\u0000"}}', (200,))
    yield Case('raw control character', b'{"inputs":{"text":"\x01"}}')
    yield Case('not JSON', b'hello')
    yield Case('empty', b'', (400, 422))
    yield Case('a number', b'3', (422,))
    yield Case('null', b'null', (422,))
    yield Case('a list', b'[]', (422,))
    yield Case('trailing comma', b'{"inputs":{},}')
    yield Case('two values', b'{"inputs":{}} {}')
    yield Case('single quotes', b"{'inputs':{}}")
    yield Case('unclosed string', b'{"inputs":{"text":"' + b'\\"' * 200_000)
    yield Case('prototype', b'{"__proto__":{"a":1},"inputs":{}}', (422,))
    yield Case('unknown fields', b'{"inputs":{},"workdir":"/etc"}', (422,))


def field_cases() -> Iterator[Case]:
    """Values that fields must not accept."""
    yield Case('path as picture', inputs(image='/etc/passwd'))
    yield Case('path as sound', inputs(audio='../../etc/passwd'))
    yield Case('address as picture', inputs(image='http://169.254.169.254/latest/meta-data/'))
    yield Case('file address as picture', inputs(image='file:///etc/passwd'))
    yield Case('path in an object', inputs(image={'path': '/etc/passwd'}), (422,))
    yield Case('base64 of a path', inputs(image=file(b'/etc/passwd')))
    yield Case('base64 with spaces', inputs(image=' ' + file(png(4, 4, b'\0' * 20))))
    yield Case('base64 without padding', inputs(image=file(b'abcd').rstrip('=')))
    yield Case('base64 of the URL alphabet', inputs(image='__--'))
    yield Case('base64 of nothing', inputs(image=''))
    yield Case('list as picture', inputs(image=[1, 2]), (422,))
    yield Case('list as text', inputs(text=['a']), (422,))
    yield Case('object as text', inputs(text={'a': 1}), (422,))
    yield Case('boolean as number', inputs(count=True), (400, 422))
    yield Case('text as number', inputs(count='__import__("os")'))
    yield Case('huge seed', json.dumps({'inputs': {}, 'seed': 2**63}).encode(), (422,))
    yield Case('negative seed', json.dumps({'inputs': {}, 'seed': -1}).encode(), (422,))
    yield Case('real seed', json.dumps({'inputs': {}, 'seed': 1.5}).encode(), (422,))
    yield Case('text as seed', json.dumps({'inputs': {}, 'seed': '1'}).encode(), (422,))
    yield Case('long text', inputs(text='a' * 900_000), (413, 422))
    yield Case('replacement characters', inputs(text='\ufffd' * 100_000), (413, 422))
    yield Case('combining characters', inputs(text='e' + '\u0301' * 1900), (200,))
    yield Case('right to left', inputs(text='\u202e\u2066' * 900), (200,))
    yield Case('many events', inputs(events=[{'time': 1}] * 5000), (422,))
    yield Case('nested events', inputs(events=[{'time': [{'time': 1}]}]), (400, 422))
    yield Case('event without object', inputs(events=[1]), (422,))
    yield Case('empty events', inputs(events=[]), (400, 200))
    yield Case('ragged array', inputs(features=[[1], [1, 2]]))
    yield Case('texts in an array', inputs(features=['a', 'b', 'c']))
    yield Case('objects in an array', inputs(features=[{}, {}, {}]))
    yield Case('deep array', inputs(features=json.loads('[' * 20 + '1' + ']' * 20)))
    yield Case('large array', inputs(features=[0.5] * 50_000))
    yield Case('too large float', b'{"inputs":{"features":[1e39,0,0]}}')
    yield Case('category of another type', inputs(letter={'a': 1}), (422,))
    yield Case(
        'a batch of a thousand',
        b'{"requests":[' + b','.join([b'{"inputs":{}}'] * 1000) + b']}',
        (422,),
        PREDICT + ':batch',
    )
    yield Case('an empty batch', b'{"requests":[]}', (422,), PREDICT + ':batch')


def bomb_cases() -> Iterator[Case]:
    """Files that grow when they are decoded."""
    yield Case('picture bomb', inputs(image=file(png(50_000, 50_000, b'\0' * 1_000_000))), (413,))
    yield Case('wide picture', inputs(image=file(png(2**31 - 1, 1))), (400, 413))
    yield Case('large square', inputs(image=file(png(8192, 8192, b'\0' * 100_000))), (413,))
    yield Case('picture without rows', inputs(image=file(png(0, 0))))
    yield Case('truncated picture', inputs(image=file(png(100, 100, b'\0' * 50))))
    yield Case('picture of one bit', inputs(image=file(png(30_000, 30_000, b'\0' * 1000, 1))), (413,))
    yield Case('a hundred thousand frames', inputs(image=file(gif(20_000))), (200,))
    yield Case('text chunk bomb', inputs(image=file(text_chunk())), (400, 200))
    yield Case('SVG', inputs(image=file(b'<svg xmlns="http://www.w3.org/2000/svg"/>')))
    yield Case('PostScript', inputs(image=file(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n')))
    yield Case('TIFF of many pages', inputs(image=file(b'II*\0\x08\0\0\0' + b'\xff' * 200)))
    yield Case('PPM with a huge size', inputs(image=file(b'P6 100000 100000 255\n')), (400, 413))
    yield Case('BMP with a negative size', inputs(image=file(bmp(-5, -5))), (400, 413))
    yield Case('empty sound', inputs(audio=file(wav(0))))
    yield Case('sound that claims more', inputs(audio=file(wav(100, claimed=10_000))))
    yield Case('sound of unknown length', inputs(audio=file(wav(100, claimed=2**32 - 1))), (200,))
    yield Case('sound of 65535 channels', inputs(audio=file(channels(65535))))
    yield Case('sound at 1 Hz', inputs(audio=file(wav(100, rate=1))))
    yield Case('sound at 2 GHz', inputs(audio=file(wav(100, rate=2**31 - 1))))
    yield Case('sound at an odd rate', inputs(audio=file(wav(3000, rate=383_999))), (200,))
    yield Case('FLAC that claims 2^36 samples', inputs(audio=file(flac())))
    yield Case('OGG of nothing', inputs(audio=file(b'OggS' + b'\0' * 1000)))
    yield Case('picture as sound', inputs(audio=file(png(4, 4, b'\0' * 20))))
    yield Case('sound as picture', inputs(image=file(wav(100))))
    yield Case('zip bomb as picture', inputs(image=file(b'PK\x03\x04' + b'\0' * 1000)))


def text_chunk() -> bytes:
    """A PNG with a compressed text of 50 MB."""
    text = zlib.compress(b'a' * 50_000_000)
    chunk = b'zTXt' + b'k\0\0' + text
    extra = struct.pack('>I', len(chunk) - 4) + chunk + struct.pack('>I', zlib.crc32(chunk))
    picture = png(4, 4, b'\0' * 20)
    return picture[:33] + extra + picture[33:]


def bmp(width: int, height: int) -> bytes:
    """A BMP header."""
    return b'BM' + struct.pack('<IHHI', 54, 0, 0, 54) + struct.pack('<IiiHHIIiiII', 40, width, height, 1, 24, *[0] * 6)


def channels(count: int) -> bytes:
    """A WAV header with many channels."""
    content = bytearray(wav(1000))
    content[22:24] = struct.pack('<H', count)
    content[32:34] = struct.pack('<H', (count * 2) % 65536)
    return bytes(content)


def flac() -> bytes:
    """A FLAC header that claims 2^36 - 1 samples."""
    rate_channels_samples = (44_100 << 44) | (1 << 41) | (15 << 36) | (2**36 - 1)
    info = struct.pack('>HH', 4096, 4096) + b'\0' * 6 + rate_channels_samples.to_bytes(8, 'big') + b'\0' * 16
    return b'fLaC\x80' + len(info).to_bytes(3, 'big') + info


def head_cases() -> Iterator[Case]:
    """Heads and addresses."""
    good = inputs(text='a')
    for media in ('text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', 'text/html',
                  'application/vnd.bentoml+pickle', 'application/x-pickle', 'application/xml', ''):  # fmt: skip
        yield Case(f'content type {media!r}', good, (415,), headers={'Content-Type': media})
    yield Case('content type with a charset', good, (200,), headers={'Content-Type': 'application/json; charset=utf-8'})
    yield Case('compressed body', zlib.compress(good), (415,), headers={'Content-Encoding': 'gzip'})
    for host in ('evil.example', '127.0.0.1.evil.example', 'localhost.evil.example', '169.254.169.254', '[::2]', ''):
        yield Case(f'host {host!r}', good, (400, 421), headers={'Host': host})
    yield Case('host with a port', good, (200,), headers={'Host': 'localhost:1234'})
    yield Case('origin of another site', good, (403,), headers={'Origin': 'https://evil.example'})
    yield Case('origin null', good, (403,), headers={'Origin': 'null'})
    yield Case('cross-site fetch', good, (403,), headers={'Sec-Fetch-Site': 'cross-site'})
    yield Case('own origin', good, (200,), headers={'Origin': 'http://localhost:8000'})
    for value in ('0', '-1', '1.5', 'abc', '9' * 30, '1e3'):
        yield Case(f'deadline {value}', good, (400,), headers={'X-Timeout-Ms': value})
    yield Case('request id with a line feed', good, (200,), headers={'X-Request-Id': 'a%0d%0ab'})
    yield Case('ninety-nine headers too many', good, (431,), headers={f'X-{n}': 'a' for n in range(150)})
    yield Case('header of 20 kB', good, (400, 431), headers={'X-Long': 'a' * 20_000})
    for method in ('DELETE', 'PUT', 'PATCH', 'TRACE', 'CONNECT', 'PROPFIND', 'OPTIONS'):
        yield Case(f'method {method}', b'', (400, 405), PREDICT, method)
    yield Case('body of 2 MB', b'"' + b'a' * 2_000_000 + b'"', (413,))


def http_cases() -> list[Case]:
    """All of them."""
    return [*json_cases(), *field_cases(), *bomb_cases(), *head_cases()]


PATHS = (
    '/models/../../etc/passwd', '/models/%2e%2e/%2e%2e/etc/passwd', '/page/../app.py', '/page/%2e%2e%2fapp.py',
    '/models/toy%00/predict', '/models/toy%0d%0aX: y/predict', '/static/page.js', '/.git/config', '//evil.example/',
    '/models/' + 'a' * 3000, '/models/toy/predict?' + 'a' * 3000, '/models/toy;/predict',
    '/v2/repository/models/toy/load', '/v2/systemsharedmemory/status', '/models/%ff%fe/predict', '/docs', '/redoc',
    '/openapi.json/..', '/..', '/%', '/%zz', '/models/toy\x80', '/page/', '/models/toy/../toy',
)  # fmt: skip

GOOD = inputs(text='a')
HEAD = b'POST /models/toy/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n'

CHUNKED = HEAD + b'Transfer-Encoding: chunked\r\n\r\n'
GET = b'GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n'

RAW: dict[str, tuple[bytes, tuple[int, ...]]] = {  # statuses; 0: the connection may end without an answer
    'HTTP/0.9': (b'GET /\r\n\r\n', (400, 0)),
    'TLS on the plain port': (b'\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03' + b'\0' * 100, (400, 0)),
    'binary': (bytes(range(256)) * 10, (400, 0)),
    'an unknown version': (b'GET /health HTTP/3.0\r\nHost: localhost\r\n\r\n', (400, 0, 200)),
    'HTTP/2 preface': (b'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', (400, 0, 404, 405, 421)),
    'no host': (b'GET /health HTTP/1.1\r\n\r\n', (400, 421)),
    'two hosts': (b'GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n', (400,)),
    'null in a header': (b'GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n', (400,)),
    'line feed in a header': (b'GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n', (400,)),
    'space before the colon': (b'GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n', (400,)),
    'folded header': (b'GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n', (200, 400)),
    'negative length': (HEAD + b'Content-Length: -5\r\n\r\n' + GOOD, (400,)),
    'length in letters': (HEAD + b'Content-Length: five\r\n\r\n' + GOOD, (400,)),
    'length with a plus': (HEAD + b'Content-Length: +5\r\n\r\n' + GOOD, (400,)),
    'huge length': (HEAD + b'Content-Length: 99999999999\r\n\r\n' + GOOD, (413,)),
    'length of 400 digits': (HEAD + b'Content-Length: ' + b'9' * 400 + b'\r\n\r\n' + GOOD, (400, 413)),
    'two lengths': (HEAD + b'Content-Length: 5\r\nContent-Length: 6\r\n\r\n' + GOOD, (400,)),
    'length too short': (HEAD + b'Content-Length: 3\r\n\r\n' + GOOD, (400,)),
    'length and chunks': (HEAD + b'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', (400,)),
    'unknown transfer encoding': (HEAD + b'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n', (400, 501)),
    'chunked twice': (HEAD + b'Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n', (400, 501)),
    'chunk size in letters': (CHUNKED + b'zz\r\n', (400, 0)),
    'negative chunk': (CHUNKED + b'-1\r\n', (400, 0)),
    'huge chunk size': (CHUNKED + b'f' * 30 + b'\r\n', (400, 413, 0)),
    'tiny chunks': (CHUNKED + b'1\r\na\r\n' * 50_000 + b'0\r\n\r\n', (400, 0)),
    'long chunk extension': (CHUNKED + b'1;' + b'a' * 50_000 + b'\r\n', (400, 408, 0)),
    'a good chunked body': (CHUNKED + b'%x\r\n%s\r\n0\r\n\r\n' % (len(GOOD), GOOD), (200,)),
    'too large in chunks': (CHUNKED + (b'40000\r\n' + b' ' * 0x40000 + b'\r\n') * 6, (413, 0)),
    'a million header bytes': (b'GET /health HTTP/1.1\r\nHost: localhost\r\n' + b'X: a\r\n' * 200_000, (400, 431, 0)),
    'a long request line': (b'GET /' + b'a' * 100_000 + b' HTTP/1.1\r\nHost: localhost\r\n\r\n', (400, 431, 0)),
    'upgrade': (b'GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n', (200, 400)),
    'absolute address': (b'GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n', (400, 404, 200)),
    'asterisk': (b'OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n', (400, 404, 405)),
    'connect': (b'CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n', (400, 404, 405)),
    'expect something': (HEAD + b'Expect: 200-maybe\r\nContent-Length: 2\r\n\r\n{}', (400, 417, 422)),
    **{f'address {path[:40]!r}': (GET % path.encode('latin-1'), (400, 404, 405)) for path in PATHS},
    'pipelining': (b'GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n' * 300, (200,)),
}  # fmt: skip
