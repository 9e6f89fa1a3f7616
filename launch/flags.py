"""Command line of all programs: absl flags and config overrides."""

import functools
import inspect
import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging

from launch.guard import escape_output, fail, guarded
from research.cluster import platform, signals
from research.errors import UserError

PREFIX = '--config.'
HELP = ('-help', '-helpshort', '-helpfull', '-h', '-?')


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Splits off overrides `--config.a.b=value` (or `--config.a.b value`), as {'a.b': 'value'}."""
    rest = []
    overrides = {}
    pending_key = None
    for argument in arguments:
        if pending_key:
            overrides[pending_key], pending_key = argument, None
        elif argument.startswith(PREFIX):
            key, equals, value = argument[len(PREFIX) :].partition('=')
            if equals:
                overrides[key] = value
            else:
                pending_key = key
        else:
            rest.append(argument)
    if pending_key:
        raise UserError(f'{PREFIX}{pending_key} needs a value: {PREFIX}{pending_key}=...')
    return rest, overrides


def run(main: Callable[..., int | None], arguments: Sequence[str] | None = None) -> None:
    """Parses flags and runs `main(overrides)`; a `UserError` becomes one message and exit status 1.

    A `main` with a second parameter also receives the positional arguments.
    """
    takes_names = len(inspect.signature(main).parameters) > 1
    arguments = list(sys.argv if arguments is None else arguments)
    try:
        rest, overrides = split_overrides(arguments)
    except UserError as error:
        fail(error)
    if any(argument.replace('--', '-') in HELP for argument in rest[1:]):
        print(help_text(main.__module__, any('helpfull' in argument for argument in rest[1:])))
        return

    def start(rest: Sequence[str]) -> int | None:
        def checked() -> int | None:
            setup()
            return main(overrides, rest[1:]) if takes_names else main(overrides)

        return guarded(checked)

    with signals.interruptible():
        guarded(lambda: app.run(start, argv=rest, flags_parser=functools.partial(parse, takes_names=takes_names)))


def help_text(module: str, full: bool) -> str:
    """Help text of a program and its flags; with `full`, including flags of imported modules."""
    description = (sys.modules[module].__doc__ or '').strip()
    flags_module = sys.argv[0] if module == '__main__' else module  # absl uses the path of a script
    listed = flags.FLAGS.get_help() if full else flags.FLAGS.module_help(flags_module)
    overrides = '--config.a.b=value sets a value of the config; --helpfull lists all flags.'
    return f'{description}\n\nflags:\n{listed}\n\n{overrides}'


def parse(arguments: Sequence[str], takes_names: bool = False) -> list[str]:
    """Parses absl flags; an invalid flag or an unexpected argument is one message and exit status 1."""
    try:
        rest = flags.FLAGS(list(arguments), known_only=False)
    except flags.Error as error:
        fail(error)
    if len(rest) > 1 and not takes_names:
        fail(UserError(f'not understood: {" ".join(rest[1:])} (flags are written --name=value)'))
    return rest


def setup() -> None:
    """Sets the log level, the platform, the compilation cache, and whether data is fetched."""
    from research.data.fetch import cache_folder

    if not flags.FLAGS.fetch:
        os.environ['TESSERA_FETCH'] = '0'
    escape_output()
    platform.choose_platform()
    level = {'debug': logging.DEBUG, 'info': logging.INFO, 'warning': logging.WARNING}[flags.FLAGS.log_level]
    logging.set_verbosity(level)
    platform.keep_compiled_programs(cache_folder() / 'compiled')


def define_common() -> None:
    """Defines the flags common to all programs: --log_level and --fetch."""
    if 'log_level' not in flags.FLAGS:
        flags.DEFINE_enum('log_level', 'warning', ['debug', 'info', 'warning'], 'How much is logged to stderr.')
        flags.DEFINE_bool('fetch', True, 'Fetch the files of a public data set on first use; --nofetch: never.')


define_common()
