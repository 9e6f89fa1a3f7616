"""Answers requests with a trained run; writes JSON lines, and images to --output.

An answer to a file starts with the file's name, {"file": "digit.png", ...}. A broken input becomes
{"error": ..., "file": "rows.jsonl, line 7"}, the others are answered, and the exit status is 1.

    python -m launch.predict --workdir=runs/python_lm --input='import os'
    python -m launch.predict --workdir=runs/digits --input=digit.png --input=folder_of_digits
    python -m launch.predict --workdir=runs/digits_gan --count=16 --seed=7 --output=samples
    python -m launch.predict --workdir=runs/digits --interactive
    python -m launch.predict --workdir=runs/digits --input=rows.jsonl --output=answers --runner=beam

Options after `--` are those of Apache Beam, such as `-- --runner=FlinkRunner --parallelism=8`.
"""

import contextlib
import functools
import pathlib
import pickle
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags

import launch.flags
import research
from research.errors import UserError

WORKDIR = flags.DEFINE_string('workdir', '', 'The folder of the run.')
INPUT = flags.DEFINE_multi_string('input', [], 'A text, a file or a folder; repeatable.')
COUNT = flags.DEFINE_integer('count', 0, 'Number of answers of a model without input.', lower_bound=0)
INTERACTIVE = flags.DEFINE_bool('interactive', False, 'Answer one typed line after another: a text, a path or JSON.')
SEED = flags.DEFINE_integer('seed', 0, 'Seed of sampled answers.', lower_bound=0, upper_bound=2**31 - 1)
OUTPUT = flags.DEFINE_string('output', '', 'Folder for answers.jsonl and images; default: standard output.')
RUNNER = flags.DEFINE_enum('runner', 'local', ['local', 'beam'], 'What runs the predictions: this process or Beam.')


def main(overrides: dict[str, str], options: Sequence[str]) -> int:
    """Prints or writes one JSON line per request; returns 1 if some could not be answered."""
    if RUNNER.value == 'beam':
        return answer_on_beam(overrides, options)
    if options:
        raise UserError(f'not understood: {" ".join(options)} (flags are written --name=value)')
    from research.inference.answers import converse
    from research.inference.requests import blank_requests, find_requests

    if [bool(INPUT.value), bool(COUNT.value), INTERACTIVE.value].count(True) != 1:
        raise UserError(
            'give one of --input (a text, file or folder), --count (a model without input) and --interactive'
        )
    model = research.load(WORKDIR.value, overrides)
    folder = pathlib.Path(OUTPUT.value).expanduser() if OUTPUT.value else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    if INTERACTIVE.value:
        converse(model, typed_lines(), SEED.value, folder, functools.partial(print, flush=True))
        return 0
    log = functools.partial(print, file=sys.stderr)  # standard output is for answers
    if INPUT.value:
        return answer_all(model, find_requests(model.task.inputs, INPUT.value, log), folder)
    return answer_all(model, blank_requests(model.task, COUNT.value), folder)


def answer_all(model: Any, requests: Sequence[Any], folder: pathlib.Path | None) -> int:
    """Writes the answers in the order of the requests, with a progress bar; returns the exit status."""
    from research.inference.answers import answer_lines, answer_lines_with_pictures, json_text
    from research.inference.progress import Progress

    shares_terminal = not folder and sys.stdout.isatty()
    failures = []
    with lines_of(folder) as file, Progress(len(requests), sys.stderr) as progress:
        lines = answer_lines_with_pictures if folder else answer_lines
        for line in lines(model, requests, SEED.value, folder):
            with progress.hidden() if shares_terminal else contextlib.nullcontext():
                print(json_text(line.answer), file=file)
            failures += [line.error] if line.error else []
            progress.advance()
    return report(len(requests), failures, folder)


def report(count: int, failures: Sequence[str], folder: Any) -> int:
    """Prints how many answers were written and how many inputs failed; returns the exit status."""
    if folder:
        print(f'{count - len(failures)} answers in {folder}')
    if failures:
        sys.stdout.flush()
        which = f'; the first: {failures[0]}' if len(failures) > 1 else f': {failures[0]}'
        print(f'\nerror: {len(failures):,} of {count:,} inputs could not be answered{which}', file=sys.stderr)
    return 1 if failures else 0


def answer_on_beam(overrides: dict[str, str], options: Sequence[str]) -> int:
    """Runs the predictions as a pipeline of Apache Beam; returns the exit status."""
    from etils import epath

    from research.inference import beam

    if not INPUT.value or not OUTPUT.value:
        raise UserError('--runner=beam needs --input (files or folders) and --output (a folder for answers.jsonl)')
    folder = epath.Path(OUTPUT.value).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    load = functools.partial(research.load, WORKDIR.value, overrides)
    model = beam.load_once(pickle.dumps(load))
    parts = beam.parts_of(model.task.inputs, INPUT.value, functools.partial(print, file=sys.stderr))
    handler = beam.RunHandler(load, model.measure.batch_size, SEED.value, str(folder))
    failures = beam.predict(handler, model.task.inputs, parts, folder, options)
    return report(sum(part.count for part in parts), failures, folder)


@contextlib.contextmanager
def lines_of(folder: pathlib.Path | None) -> Iterator[Any]:
    """The file for the answers: answers.jsonl, which exists only when it is complete, or standard output."""
    if folder is None:
        yield sys.stdout
        return
    unfinished = folder / 'answers.jsonl.unfinished'
    with unfinished.open('w', encoding='utf-8', errors='backslashreplace') as file:
        yield file
    unfinished.replace(folder / 'answers.jsonl')


def typed_lines() -> Iterator[str]:
    """Yields the lines of standard input until its end, with a prompt and a history on a terminal."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    with contextlib.suppress(ImportError):  # Windows has none
        import readline  # noqa: F401  # gives `input` a history and the arrow keys
    print('A text, the path of a file, or a JSON object; Ctrl-D ends.', file=sys.stderr)
    with contextlib.suppress(EOFError):
        while True:
            prompt = '> '
            if not sys.stdout.isatty():  # `input` would print it among the answers
                print(prompt, end='', file=sys.stderr, flush=True)
                prompt = ''
            yield input(prompt)


if __name__ == '__main__':
    launch.flags.run(main)
