"""Checks the prose of the project: spelling, and a list of discouraged phrases.

    python launch/check_prose.py [FOLDER]

Reads the Python files of research/, launch/, configs/ and benchmarks/, and the English documents. Prints each match
with its line and an alternative, and exits with 1 if there is any. The spelling check needs codespell.
"""

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

FOLDERS = ('research', 'launch', 'configs', 'benchmarks')
DOCUMENTS = ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'docs/*.md')
OWN_NAME = 'launch/check_prose.py'
PHRASES = {
    r'\b[Ss]o (many|much) (?!as|that|more|less|faster|longer)': 'write "N" or the number',
    r'\bis told\b': 'use the active verb: "is flagged", "receives"',
    r'\bwhat (stands|lies|it says|is said)\b': 'name the thing',
    r'\bis none\b': 'write "is not one" or name the rule',
    r'\bnobody\b': 'name the condition',
    r'\bsays so\b': 'write what is printed',
    r'\bin words\b': 'leave it out',
    r'\bfor ever\b': 'write "always" or "until ..."',
    r'\bis asked\b': 'write "if set" or "on request"',
    r'\bgoes on\b': 'write "continues" or "resumes"',
    r'\bwhatever\b': 'write "any"',
    r'\bit all\b': 'name it',
    r'\b[Aa]like\b': 'write "the same"',
    r'\bby itself\b': 'write "alone" or "automatically"',
    r'\bmust be told\b': 'write "needs"',
}
WORDS = ('hist', 'ot', 'fo', 'nd', 'te', 'ser', 'ist', 'ue', 'inout', 'fpr', 'ans', 'crate', 'statics', 'theses')


def files(root: Path) -> Iterator[Path]:
    """Yields the files to check."""
    for folder in FOLDERS:
        yield from sorted((root / folder).rglob('*.py'))
    for pattern in DOCUMENTS:
        yield from sorted(root.glob(pattern))


def hits(root: Path) -> list[str]:
    """Lists 'path:line: phrase: advice' for each match of `PHRASES`."""
    problems = []
    for path in files(root):
        name = path.relative_to(root).as_posix()
        if name == OWN_NAME:
            continue
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            for pattern, advice in PHRASES.items():
                if match := re.search(pattern, line):
                    problems.append(f'{name}:{number}: "{match[0].strip()}": {advice}')
    return problems


def misspelt(root: Path) -> list[str]:
    """Runs codespell and lists its output; empty if it is not installed."""
    if not importlib.util.find_spec('codespell_lib'):
        return []
    names = [str(path.relative_to(root)) for path in files(root)]
    command = [sys.executable, '-m', 'codespell_lib', '--ignore-words-list', ','.join(WORDS), *names]
    return subprocess.run(command, cwd=root, text=True, capture_output=True).stdout.splitlines()


def main(arguments: Sequence[str]) -> int:
    """Prints the problems below a folder, by default this repository; returns 1 if there are any."""
    root = Path(arguments[0]) if arguments else Path(__file__).resolve().parent.parent
    problems = [*hits(root), *misspelt(root)]
    print('\n'.join(problems) or 'prose: no problems')
    return 1 if problems else 0


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
