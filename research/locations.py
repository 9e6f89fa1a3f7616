"""Paths as typed by users."""

import importlib.util
import os
import pathlib

from etils import epath

from research.errors import UserError

STORES = {'gs': 'gcsfs', 's3': 's3fs'}  # scheme of an object store: the package that reads it


def run_folder(workdir: str | os.PathLike) -> epath.Path:
    """The folder of a run; expands '~', which a shell does not expand in --workdir=~/x.

    Raises:
      UserError: for an object store whose package is missing.
    """
    scheme, colon, _ = os.fspath(workdir).partition('://')
    package = STORES.get(scheme, '') if colon else ''
    if package and not importlib.util.find_spec(package):
        raise UserError(f'{workdir}: the package {package} is needed for {scheme}:// paths: pip install {package}')
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
