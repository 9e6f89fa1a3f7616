"""Error handling of all programs: mistakes, full disks, closed pipes and signals become one message and a status."""

import codecs
import errno
import os
import signal
import sys
from collections.abc import Callable

from absl import flags, logging

from research.cluster.signals import Interrupted
from research.disk import disk_text, is_disk_full
from research.errors import UserError

SIGPIPE = 13  # Windows has none
REASONS = {
    errno.EEXIST: 'a file of this name exists where a folder is needed',
    errno.ENOTDIR: 'a part of this path is a file, not a folder',
    errno.EISDIR: 'this is a folder, but a file is needed',
    errno.EACCES: 'this user may not read or write it',
    errno.EROFS: 'the file system is read-only',
}


def guarded(main: Callable[[], int | None]) -> int | None:
    """Calls `main`; mistakes of the user and signals become one message and an exit status.

    The status is 1 after a mistake, and 128 + the number of a signal.
    """
    try:
        result = main()
        sys.stdout.flush()  # here, where an error can still be reported
        return result
    except BrokenPipeError:  # the reader of standard output has closed it
        drop_output()
        sys.exit(128 + SIGPIPE)
    except (Interrupted, KeyboardInterrupt) as error:
        number = error.number if isinstance(error, Interrupted) else signal.SIGINT
        print(f'\nstopped by {signal.Signals(number).name}', file=sys.stderr)
        sys.exit(128 + number)
    except Exception as error:
        text = message(error)
        if not text:
            raise
        if flags.FLAGS.is_parsed() and flags.FLAGS.log_level == 'debug':
            logging.exception('the stack of the message below')
        fail(text)


def message(error: Exception) -> str:
    """Message for an error; '' for a bug, which keeps its stack trace."""
    if isinstance(error, UserError):
        return str(error)
    if is_disk_full(error):
        filename = getattr(error, 'filename', None)
        drop_output()  # it may be on the full disk
        folders = [os.path.dirname(os.fsdecode(filename))] if filename else written_folders()
        first = f'{os.fsdecode(filename)}: the disk is full' if filename else 'the disk is full'
        return '\n'.join([first, *map(disk_text, folders)])
    if isinstance(error, OSError) and error.filename is not None:
        return f'{os.fsdecode(error.filename)}: {REASONS.get(error.errno or 0, error.strerror)}'
    return ''


def written_folders() -> list[str]:
    """Folders that a program may write to, according to its flags."""
    values = (flags.FLAGS[name].value for name in ('workdir', 'output', 'folder') if name in flags.FLAGS)
    return [str(value) for value in values if value] or ['.']


def drop_output() -> None:
    """Redirects standard output to the null device, so that the final flush does not fail again."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # in a notebook or a test, standard output is not a file
        pass


def fail(error: Exception | str) -> None:
    """Prints one message and exits with status 1."""
    print(f'\nerror: {error}', file=sys.stderr)
    sys.exit(1)


def escape(error: UnicodeError) -> tuple[str, int]:
    r"""Codec error handler: replaces characters that cannot be encoded by JSON escapes (é by \u00e9)."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode('utf-16-be', 'surrogatepass')
    pairs = (units[start : start + 2].hex() for start in range(0, len(units), 2))
    return ''.join(f'\\u{pair}' for pair in pairs), error.end


def escape_output() -> None:
    """Makes standard output escape characters that its encoding (such as CP1252) lacks; JSON values do not change."""
    codecs.register_error('json_escape', escape)
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='json_escape')  # pyright: ignore[reportAttributeAccessIssue]
