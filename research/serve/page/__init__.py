"""The page of the server, `GET /`: files that are kept in memory, and the headers to send with them."""

import gzip
import pathlib
from typing import NamedTuple

MEDIA_TYPES = {
    '.html': 'text/html; charset=utf-8',
    '.css': 'text/css; charset=utf-8',
    '.js': 'text/javascript; charset=utf-8',
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS = {
    'Content-Security-Policy': POLICY,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
    'Permissions-Policy': 'camera=(self), microphone=(self), geolocation=()',
    'Cache-Control': 'no-cache',
    'Vary': 'Accept-Encoding',
}


class PageFile(NamedTuple):
    """One file of the page: its bytes, the same compressed, and its media type."""

    content: bytes
    zipped: bytes
    media_type: str

    def response(self, accept_encoding: str = '') -> tuple[dict[str, str], bytes]:
        """The headers and body for a browser with this Accept-Encoding."""
        zips = 'gzip' in accept_encoding.lower()
        body = self.zipped if zips else self.content
        encoding = {'Content-Encoding': 'gzip'} if zips else {}
        return {**HEADERS, **encoding, 'Content-Type': self.media_type, 'Content-Length': str(len(body))}, body


def page_files() -> dict[str, PageFile]:
    """Reads the page: {URL path: file}, '/' for index.html and '/page/NAME' for the others."""
    files = {}
    for path in sorted(pathlib.Path(__file__).parent.iterdir()):
        if path.suffix in MEDIA_TYPES:
            content = path.read_bytes()
            address = '/' if path.name == 'index.html' else f'/page/{path.name}'
            files[address] = PageFile(content, gzip.compress(content, mtime=0), MEDIA_TYPES[path.suffix])
    return files
