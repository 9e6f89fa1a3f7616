"""Members of tar and zip archives: location of their bytes, resolved links, and sparse files."""

import posixpath
import tarfile
import zipfile
from collections.abc import Mapping
from typing import Any, NamedTuple

from research.data.readers.walk import LeftOut, is_hidden
from research.errors import UserError

MAX_LINK_DEPTH = 20


class Member(NamedTuple):
    """The bytes of a member: a range of the decompressed tar, or a whole member of a zip."""

    start: int  # -1 in a zip
    size: int
    name: str  # as stored in the archive
    pieces: tuple[tuple[int, int], ...] | None = None  # (offset, size) of the data of a sparse file


def plain_name(name: str) -> str:
    """A member's name without './', '..' or a leading slash, with forward slashes."""
    return posixpath.normpath('/' + name.replace('\\', '/')).lstrip('/')


def tar_members(tar: tarfile.TarFile) -> tuple[dict[str, Member], list[LeftOut]]:
    """{name: member} of a tar, and the members left out; links resolve to their targets."""
    members: dict[str, Member] = {}
    links: dict[str, str] = {}
    left_out = []
    for info in tar:
        name = plain_name(info.name)
        if info.isdir() or name in ('', '.'):
            continue
        if is_hidden(name):
            left_out.append(LeftOut('hidden', name))
        elif info.islnk():
            links[name] = plain_name(info.linkname)
        elif info.issym():
            links[name] = plain_name(posixpath.join(posixpath.dirname('/' + name), info.linkname))
        elif info.isreg():
            pieces = tuple((int(start), int(size)) for start, size in info.sparse) if info.sparse is not None else None  # pyright: ignore[reportGeneralTypeIssues]
            members[name] = Member(info.offset_data, info.size, info.name, pieces)
        else:
            left_out.append(LeftOut('special', name))
        if name in members and not (info.islnk() or info.issym()):
            links.pop(name, None)  # a later member of the same name replaces a link, as when it is unpacked
    for name in links:
        target = followed(name, links)
        if target in members:
            members[name] = members[target]
        else:
            left_out.append(LeftOut('linked', name))
    return members, left_out


def followed(name: str, links: Mapping[str, str]) -> str:
    """The target of a chain of links; '' if it is cyclic."""
    for _ in range(MAX_LINK_DEPTH):
        if name not in links:
            return name
        name = links[name]
    return ''


def zip_members(archive: zipfile.ZipFile, path: str) -> tuple[dict[str, Member], list[LeftOut]]:
    """{name: member} of a zip, and the members left out.

    Raises:
      UserError: if a member is encrypted.
    """
    members: dict[str, Member] = {}
    left_out = []
    for info in archive.infolist():
        name = plain_name(info.filename)
        if info.is_dir() or info.filename.endswith('\\') or name in ('', '.'):
            continue
        if is_hidden(name):
            left_out.append(LeftOut('hidden', name))
        elif (info.external_attr >> 28) == 0xA:  # a symbolic link; its content is the target
            left_out.append(LeftOut('linked', name))
        elif info.flag_bits & 1:
            raise UserError(f'{path}: {name} is encrypted; unpack the zip with its password and name the folder')
        else:
            members[name] = Member(-1, info.file_size, info.filename)
    return members, left_out


def filled(member: Member, read: Any) -> bytes:
    """The bytes of a sparse member of a tar: its stored pieces, and zeros between them.

    Args:
      member: with `pieces`.
      read: (start, size) -> bytes of the tar.

    Raises:
      ValueError: for pieces outside the member.
    """
    data, position = bytearray(member.size), member.start
    for start, size in member.pieces or ():
        if start < 0 or size < 0 or start + size > member.size:
            raise ValueError('its map of pieces is damaged')
        data[start : start + size] = read(position, size)
        position += size
    return bytes(data)
