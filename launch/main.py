"""The console command: `tessera train --config=...` is `python -m launch.train --config=...`."""

import importlib
import pathlib
import sys

from research.errors import nearest


def programs() -> dict[str, str]:
    """{program: first line of its docstring} for the modules of launch/ with a `main(overrides)`."""
    descriptions = {}
    for file in sorted(pathlib.Path(__file__).parent.glob('*.py')):
        if file.name == pathlib.Path(__file__).name:
            continue
        text = file.read_text(encoding='utf-8')
        if 'def main(overrides' in text:
            descriptions[file.stem] = text.split('\n', 1)[0].strip('"')
    return descriptions


def main() -> None:
    """Runs the program named by the first argument."""
    known = programs()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('--help', '-h', 'help'):
        print('usage: tessera PROGRAM [flags]\n')
        for program, description in known.items():
            print(f'  {program:16} {description}')
        print('\ntessera PROGRAM --help shows its flags, tessera --version the version.')
        return
    if name == '--version':
        import research

        print(f'tessera {research.__version__}')
        return
    if name not in known:
        sys.exit(f'error: there is no program {name!r}; {nearest(name, known)}')
    module = importlib.import_module(f'launch.{name}')
    from launch import flags

    flags.run(module.main, [f'tessera {name}', *sys.argv[2:]])


if __name__ == '__main__':
    main()
