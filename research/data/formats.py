"""Recognizes pictures, sounds and tables by content or name: one list for data and for requests."""

import os
from typing import Literal

Kind = Literal['image', 'audio', '']

PICTURES = (
    '.png', '.jpg', '.jpeg', '.jfif', '.jpe', '.bmp', '.dib', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm', '.pbm',
    '.pnm',
)  # fmt: skip
SOUNDS = ('.wav', '.flac', '.ogg', '.oga', '.opus', '.mp3', '.aif', '.aiff')
TABLES = {'.jsonl': 'jsonl', '.ndjson': 'jsonl', '.csv': 'csv', '.tsv': 'tsv', '.parquet': 'parquet'}
PILLOW = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'DIB', 'TIFF', 'PPM')  # the only decoders that Pillow may use
HEAD_BYTES = 16  # enough to recognize a format

STARTS: dict[bytes, Kind] = {
    b'\x89PNG\r\n\x1a\n': 'image', b'\xff\xd8\xff': 'image', b'GIF87a': 'image', b'GIF89a': 'image',
    b'II*\0': 'image', b'MM\0*': 'image', b'fLaC': 'audio', b'OggS': 'audio', b'ID3': 'audio',
    b'\xff\xfb': 'audio', b'\xff\xf3': 'audio', b'\xff\xf2': 'audio',
}  # fmt: skip
NETPBM = (b'P1', b'P2', b'P3', b'P4', b'P5', b'P6')


def kind_of_content(head: bytes) -> Kind:
    """Classifies the first bytes of a file as 'image' or 'audio'; '' for formats that are not read."""
    for start, kind in STARTS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b'RIFF':
        return {b'WEBP': 'image', b'WAVE': 'audio'}.get(head[8:12], '')  # pyright: ignore[reportReturnType]
    if head[:4] == b'FORM' and head[8:12] in (b'AIFF', b'AIFC'):
        return 'audio'
    if head[:2] in NETPBM and head[2:3].isspace():
        return 'image'
    if head[:2] == b'BM' and head[6:10] == b'\0\0\0\0':  # also check the reserved field: a text may start with BM
        return 'image'
    return ''


def kind_of_name(name: str) -> Kind:
    """Classifies a file by its extension as 'image' or 'audio', or ''; case does not matter."""
    ending = os.path.splitext(name)[1].lower()
    return 'image' if ending in PICTURES else 'audio' if ending in SOUNDS else ''
