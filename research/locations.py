"""Paths as typed by users."""

import os
import pathlib

from etils import epath


def run_folder(workdir: str | os.PathLike) -> epath.Path:
    """The folder of a run; expands '~', which a shell does not expand in --workdir=~/x."""
    return epath.Path(os.path.expanduser(os.fspath(workdir)))


def split_variant(spec: str) -> tuple[str, str]:
    """Splits 'path' or 'path:variant' into (path, variant).

    A path may contain a colon, such as that of a Windows drive: an existing file, with or without '.py', has no
    variant.
    """
    spec = os.path.expanduser(spec)
    if any(pathlib.Path(name).is_file() for name in (spec, f'{spec}.py')):
        return spec, ''
    path, colon, variant = spec.rpartition(':')
    if not colon or '/' in variant or '\\' in variant:  # the colon belongs to a folder or a drive
        return spec, ''
    return path, variant
