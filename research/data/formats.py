"""Which files are pictures, sounds and tables, by their content or their name: one list for data and for requests."""

import os
from typing import Literal

Kind = Literal['image', 'audio', '']

PICTURES = (
    '.png', '.jpg', '.jpeg', '.jfif', '.jpe', '.bmp', '.dib', '.gif', '.webp', '.tif', '.tiff', '.ppm', '.pgm', '.pbm',
    '.pnm',
)  # fmt: skip
SOUNDS = ('.wav', '.flac', '.ogg', '.oga', '.opus', '.mp3', '.aif', '.aiff')
TABLES = {'.jsonl': 'jsonl', '.ndjson': 'jsonl', '.csv': 'csv', '.tsv': 'tsv', '.parquet': 'parquet'}
PILLOW = ('PNG', 'JPEG', 'WEBP', 'GIF', 'BMP', 'DIB', 'TIFF', 'PPM')  # the decoders that Pillow may use
HEAD = 16  # bytes that tell a format

STARTS: dict[bytes, Kind] = {
    b'\x89PNG\r\n\x1a\n': 'image', b'\xff\xd8\xff': 'image', b'GIF87a': 'image', b'GIF89a': 'image',
    b'II*\0': 'image', b'MM\0*': 'image', b'fLaC': 'audio', b'OggS': 'audio', b'ID3': 'audio',
    b'\xff\xfb': 'audio', b'\xff\xf3': 'audio', b'\xff\xf2': 'audio',
}  # fmt: skip
NETPBM = (b'P1', b'P2', b'P3', b'P4', b'P5', b'P6')


def kind_of_content(head: bytes) -> Kind:
    """Returns 'image' or 'audio' for the first bytes of a file that the decoders read, '' for all others."""
    for start, kind in STARTS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b'RIFF':
        return {b'WEBP': 'image', b'WAVE': 'audio'}.get(head[8:12], '')  # pyright: ignore[reportReturnType]
    if head[:4] == b'FORM' and head[8:12] in (b'AIFF', b'AIFC'):
        return 'audio'
    if head[:2] in NETPBM and head[2:3].isspace():
        return 'image'
    if head[:2] == b'BM' and head[6:10] == b'\0\0\0\0':  # its reserved field: a text may start with these letters
        return 'image'
    return ''


def kind_of_name(name: str) -> Kind:
    """Returns 'image' or 'audio' for a file's ending, '' for all others; letters of either case."""
    ending = os.path.splitext(name)[1].lower()
    return 'image' if ending in PICTURES else 'audio' if ending in SOUNDS else ''
