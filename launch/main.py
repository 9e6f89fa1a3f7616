"""The console command: `tessera train --config=...` is `python -m launch.train --config=...`."""

import importlib
import pathlib
import sys

from research.errors import nearest


def programs() -> dict[str, str]:
    """Returns {program: first line of its documentation} for each other module of launch/ with a `main(overrides)`."""
    found = {}
    for file in sorted(pathlib.Path(__file__).parent.glob('*.py')):
        if file.name == pathlib.Path(__file__).name:
            continue
        text = file.read_text(encoding='utf-8')
        if 'def main(overrides' in text:
            found[file.stem] = text.split('\n', 1)[0].strip('"')
    return found


def main() -> None:
    """Runs the program that the first argument names."""
    known = programs()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('--help', '-h', 'help'):
        print('usage: tessera PROGRAM [flags]\n')
        for each, about in known.items():
            print(f'  {each:16} {about}')
        print('\ntessera PROGRAM --help shows its flags.')
        return
    if name not in known:
        sys.exit(f'error: there is no program {name!r}; {nearest(name, known)}')
    module = importlib.import_module(f'launch.{name}')
    from launch import flags

    flags.run(module.main, [f'tessera {name}', *sys.argv[2:]])
