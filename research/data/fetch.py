"""Where the files of a public data set are found."""

import os
import pathlib

from etils import epath

from research.errors import UserError


def data_root() -> str:
    """Returns the folder with one subfolder per data set: $TESSERA_DATA, or 'tessera' in the user's cache folder."""
    cache = os.environ.get('XDG_CACHE_HOME') or str(pathlib.Path.home() / '.cache')
    return os.environ.get('TESSERA_DATA') or f'{cache}/tessera'


def folder_of(name: str, folder: str = '') -> str:
    """Returns the folder that holds the files of a data set.

    Args:
      name: of its subfolder of `data_root()`.
      folder: `config.data.folder`, which is taken instead where it is given; `~` and `$NAME` are replaced.

    Raises:
      UserError: where there is no such folder.
    """
    given = os.path.expanduser(os.path.expandvars(folder))
    path = given or f'{data_root().rstrip("/")}/{name}'
    if epath.Path(path).is_dir():
        return path
    if given:
        raise UserError(f'config.data.folder={folder!r}: there is no such folder')
    variable = f'TESSERA_DATA={data_root()}' if os.environ.get('TESSERA_DATA') else 'TESSERA_DATA is not set'
    raise UserError(
        f'the files of {name} are missing: {path} is not there ({variable}); set TESSERA_DATA to the folder that has '
        'one subfolder per data set, or config.data.folder to the folder of this one'
    )
