"""Files as users have them, made for the tests of the readers."""

import gzip
import io
import json
import pathlib
import struct
import tarfile
import zipfile

import pyarrow
import pyarrow.parquet
import soundfile
from PIL import Image

WHOLE = {'validation_fraction': 0.0, 'test_fraction': 0.0}
ROWS = [
    {'text': 'un œuf', 'label': 'b'},
    {'text': 'two, "quoted"', 'label': 'a'},
    {'text': 'line\nfeed', 'label': 'b'},
]


def idx_bytes(array, kind):
    head = struct.pack('>HBB', 0, kind, array.ndim) + struct.pack(f'>{array.ndim}I', *array.shape)
    return head + array.astype({8: '>u1', 0x0D: '>f4'}[kind]).tobytes()


def png(value, mode='L', size=(6, 5)):
    buffer = io.BytesIO()
    Image.new(mode, size, value).save(buffer, 'PNG')
    return buffer.getvalue()


def wav(samples, rate=8000):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format='WAV')
    return buffer.getvalue()


def parquet_bytes(rows):
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def table_bytes(reader):
    """The rows of ROWS as a file of a format; TSV cannot hold a line feed."""
    if reader == 'jsonl':
        return '\n'.join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode() + b'\n\n'
    if reader == 'csv':
        return 'text,label\r\nun œuf,b\r\n\r\n"two, ""quoted""",a\r\n"line\nfeed",b\r\n'.encode()
    if reader == 'tsv':
        return 'text\tlabel\nun œuf\tb\ntwo, "quoted"\ta\nline feed\tb'.encode()
    return parquet_bytes(ROWS)


def pack(folder: pathlib.Path, how: str, name: str, data: bytes) -> str:
    """Writes a file in one of the ways that readers know; returns the path to give them."""
    if how == 'plain':
        (folder / name).write_bytes(data)
        return str(folder / name)
    if how == 'gz':
        (folder / f'{name}.gz').write_bytes(gzip.compress(data))
        return str(folder / f'{name}.gz')
    return f'{make_archive(folder, how, {f"inner/{name}": data})}/inner/{name}'


def make_archive(folder: pathlib.Path, how: str, files: dict[str, bytes]) -> str:
    path = folder / f'packed.{how}'
    if how == 'zip':
        with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return str(path)
    with tarfile.open(path, {'tar': 'w', 'tar.gz': 'w:gz', 'tar.xz': 'w:xz'}[how]) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)
