"""Checks an exported folder: its hashes, and its test vectors in a process without this package and flax."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from research.errors import UserError
from research.export.folder import MANIFEST, sha256_of

PROBE = Path(__file__).parent / 'runners' / 'probe.py'
SECONDS = 900  # for loading and running


class Checked(NamedTuple):
    """The result of a check."""

    format: str
    files: int
    error: float  # the largest of all outputs
    tolerance: float
    load_seconds: float
    milliseconds: float  # of one call with the test vectors, median

    def __str__(self) -> str:
        return (
            f'{self.format}: {self.files} files as in {MANIFEST}; largest error {self.error:.2g} (allowed '
            f'{self.tolerance:.2g}); loaded in {self.load_seconds:.1f} s, {self.milliseconds:.2f} ms a call'
        )


def check_folder(folder: Path) -> Checked:
    """Checks a folder; its run.py is executed, so check only folders that you trust.

    Raises:
      UserError: names the damaged or missing file, the missing or wrong package, or the output that differs.
    """
    count = check_hashes(folder)
    described = read_described(folder)
    if not (folder / 'run.py').exists():
        raise UserError(f'{folder} has no run.py: a folder of the format {described["format"]} runs in other programs')
    result = probe(folder, described)
    error, tolerance = result['error'], described['tolerance']
    if not error <= tolerance:
        raise UserError(
            f'{folder}: output {result["worst"]!r} differs by {error:.2g}, more than the allowed {tolerance:.2g}'
            f'{versions_text(described, result["versions"])}'
        )
    return Checked(described['format'], count, error, tolerance, result['load_seconds'], result['milliseconds'])


def check_hashes(folder: Path) -> int:
    """Compares every file with the manifest; returns their number.

    Raises:
      UserError: for a file that is missing, changed or not listed.
    """
    manifest = folder / MANIFEST
    if not manifest.is_file():
        raise UserError(f'{folder} is not an exported folder: it has no {MANIFEST}')
    listed = {}
    for number, line in enumerate(manifest.read_text(encoding='utf-8', errors='replace').splitlines(), 1):
        digest, _, name = line.partition('  ')
        if len(digest) != 64 or not name or Path(name).is_absolute() or '..' in Path(name).parts:
            raise UserError(f'{manifest}, line {number} is damaged: {line!r:.80}')
        listed[name] = digest
    for name, digest in listed.items():
        if not (folder / name).is_file():
            raise UserError(f'{folder / name} is missing: copy or export the folder again')
        if sha256_of(folder / name) != digest:
            raise UserError(f'{folder / name} is damaged: its hash is not that of {MANIFEST}; export the folder again')
    present = {file.relative_to(folder).as_posix() for file in folder.rglob('*') if file.is_file()} - {MANIFEST}
    others = sorted(name for name in present - set(listed) if '__pycache__' not in name)
    if others:
        raise UserError(f'{folder / others[0]} is not listed in {MANIFEST}: remove it')
    return len(listed)


def read_described(folder: Path) -> dict[str, Any]:
    """program.json of a folder; raises UserError if it is not of this layout."""
    try:
        described = json.loads((folder / 'program.json').read_text(encoding='utf-8'))
        return {**described, 'format': described['format'], 'tolerance': float(described['tolerance'])}
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f'{folder / "program.json"} is missing or damaged: export the folder again') from None


def probe(folder: Path, described: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the test vectors in a process of its own.

    Raises:
      UserError: with the last line of the error, and the versions that differ from those of the export.
    """
    command = [sys.executable, '-I', str(PROBE), str(folder.resolve()), json.dumps(list(described['packages']))]
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f'{folder}: run.py has not answered within {SECONDS} seconds') from None
    lines = process.stdout.strip().splitlines()
    try:
        result = json.loads(lines[-1])
    except (IndexError, ValueError):
        reason = (process.stderr.strip().splitlines() or [f'exit status {process.returncode}'])[-1]
        raise UserError(f'{folder}: run.py ended without a result: {reason:.300}') from None
    if 'failed' in result:
        raise UserError(
            f'{folder}: run.py fails: {result["failed"]:.500}{versions_text(described, result["versions"])}'
        )
    return result


def versions_text(described: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    """The packages whose versions differ from those of the export, for a message."""
    different = [
        f'{name} {version} at the export, {versions.get(name) or "none"} here'
        for name, version in described['packages'].items() if versions.get(name) != version
    ]  # fmt: skip
    return f' ({"; ".join(different)})' if different else ''
