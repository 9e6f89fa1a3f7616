"""How every program ends: mistakes, full disks, closed pipes and signals are one message and an exit status."""

import codecs
import os
import signal
import sys
from collections.abc import Callable

from absl import flags, logging

from research.cluster.signals import Interrupted
from research.disk import disk_text, is_disk_full
from research.errors import UserError

SIGPIPE = 13  # Windows has none


def guarded(main: Callable[[], int | None]) -> int | None:
    """Calls `main`; what a person can put right, and what ends a program from outside, becomes one message.

    The exit status is 1 after a mistake and 128 + the number of a signal.
    """
    try:
        result = main()
        sys.stdout.flush()  # while an error of it can still be told
        return result
    except BrokenPipeError:  # whoever read standard output has seen enough
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
    """Returns what to tell about an error, '' for one that is a bug and keeps its stack trace."""
    if isinstance(error, UserError):
        return str(error)
    if is_disk_full(error):
        named = getattr(error, 'filename', None)
        drop_output()  # which may be what is full
        folders = [os.path.dirname(os.fsdecode(named))] if named else written_folders()
        first = f'{os.fsdecode(named)}: the disk is full' if named else 'the disk is full'
        return '\n'.join([first, *map(disk_text, folders)])
    if isinstance(error, OSError) and error.filename is not None:
        return f'{os.fsdecode(error.filename)}: {error.strerror}'
    return ''


def written_folders() -> list[str]:
    """Returns the folders that a program may write to, by its flags."""
    values = (flags.FLAGS[name].value for name in ('workdir', 'output', 'folder') if name in flags.FLAGS)
    return [str(value) for value in values if value] or ['.']


def drop_output() -> None:
    """Sends standard output nowhere, so that the interpreter does not fail again when it flushes it at the end."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):  # a notebook's or a test's output is no file
        pass


def fail(error: Exception | str) -> None:
    """Prints one message and exits with status 1."""
    print(f'\nerror: {error}', file=sys.stderr)
    sys.exit(1)


def escape(error: UnicodeError) -> tuple[str, int]:
    r"""Returns characters that an output cannot encode as JSON escapes (é as \u00e9), and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode('utf-16-be', 'surrogatepass')
    pairs = (units[place : place + 2].hex() for place in range(0, len(units), 2))
    return ''.join(f'\\u{pair}' for pair in pairs), error.end


def escape_output() -> None:
    """Lets standard output escape what its encoding (such as CP1252) lacks: JSON lines stay the same values."""
    codecs.register_error('json_escape', escape)
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='json_escape')
