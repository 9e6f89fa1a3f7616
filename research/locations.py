"""Paths as a person types them."""

import os
import pathlib

from etils import epath


def run_folder(workdir: str | os.PathLike) -> epath.Path:
    """Returns the folder of a run; '~' is the user's home, as in a shell, which does not see it in --workdir=~/x."""
    return epath.Path(os.path.expanduser(os.fspath(workdir)))


def split_variant(spec: str) -> tuple[str, str]:
    """Returns (path, variant) of 'path' or 'path:variant'.

    A path may hold a colon itself, such as that of a Windows drive: a file that exists, with or without '.py', has
    no variant.
    """
    spec = os.path.expanduser(spec)
    if any(pathlib.Path(name).is_file() for name in (spec, f'{spec}.py')):
        return spec, ''
    path, colon, variant = spec.rpartition(':')
    if not colon or '/' in variant or '\\' in variant:  # the colon belongs to a folder or a drive
        return spec, ''
    return path, variant
