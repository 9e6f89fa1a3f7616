"""The folder of an exported model: one layout for every format.

    program.json          programs with their weights, inputs and outputs; versions
    weights.safetensors   the weights, unless the format keeps them in its own file
    vectors.safetensors   eight encoded inputs ('inputs/NAME') and their outputs ('outputs/NAME')
    inputs.json           the fields of a request, as `Task.inputs`
    labels.json           class names in the order of the outputs, where there are any
    tokenizer.json, ...   what requests are encoded with, where it is a file
    run.py                runs the program with NumPy and one runtime
    README.md, LICENSE, MANIFEST.sha256

A format is a module with `export(source, folder, int8=False) -> Written`: it writes its own files into `folder`, and
`write_folder` adds the others.
"""

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import save

from research.errors import UserError
from research.export.programs import Program, Source
from research.export.readme import license_text, readme_text

MANIFEST = 'MANIFEST.sha256'
RUNNERS = Path(__file__).parent / 'runners'
HASH_BYTES = 2**20  # read at once
PREPARED = {  # files of prepared/ that encode requests: {name in a run: name in the folder}
    'tokenizer.json': 'tokenizer.json', 'source.json': 'tokenizer.json', 'target.json': 'target_tokenizer.json',
    'vocabulary.json': 'vocabulary.json', 'ngrams.json': 'ngrams.json', 'columns.json': 'columns.json',
}  # fmt: skip


class Written(NamedTuple):
    """What a format has written, for the files that all formats share."""

    runner: str  # the file of `runners/` that becomes run.py; '': the format has written its own, or none
    packages: Sequence[str]  # whose versions are recorded; the first one is the runtime
    programs: Mapping[str, Any]  # {name: `signature` and its files}, for program.json
    main: str  # the program that the test vectors are for
    inputs: Mapping[str, np.ndarray]  # the test vectors
    outputs: Mapping[str, np.ndarray]
    tolerance: float  # largest error of `outputs`
    promise: str  # how long the files stay readable, for README.md
    weights: Mapping[str, np.ndarray] = {}  # for weights.safetensors; {}: none
    any_batch: bool = False  # the programs take any number of rows; else one
    more: Mapping[str, Any] = {}  # further keys of program.json
    card: str = ''  # metadata before README.md, as the Hugging Face hub reads it


def signature(program: Program, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a program in program.json; `outputs` have a shape, with the batch symbolic, and a dtype."""

    def entry(shape: Sequence[Any], dtype: Any) -> dict[str, Any]:
        return {'dtype': np.dtype(dtype).name, 'shape': [size if isinstance(size, int) else 'batch' for size in shape]}

    return {
        'weights': list(program.weights),
        'inputs': {name: entry(shape, program.inputs[name].dtype) for name, shape in program.shapes.items()},
        'outputs': {name: entry(value.shape, value.dtype) for name, value in outputs.items()},
    }


def write_folder(
    source: Source, format_name: str, export: Callable[..., Written], folder: Path, int8: bool = False
) -> Path:
    """Writes an exported model into `folder`, which is new or empty, and returns it.

    Raises:
      UserError: if the folder is not empty, or the format cannot hold the model.
    """
    folder = folder.expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f'--output={folder} exists and is not empty: name another folder')
    part = folder.with_name(f'{folder.name}.unfinished')
    if part.exists():
        shutil.rmtree(part)
    part.mkdir(parents=True)
    try:
        written = export(source, part, int8=int8)
        write_shared(source, format_name, written, part)
    except UserError:
        shutil.rmtree(part)
        raise
    if folder.exists():
        folder.rmdir()
    part.replace(folder)
    return folder


def write_shared(source: Source, format_name: str, written: Written, folder: Path) -> None:
    """Writes the files that all formats share."""
    described = describe(source, format_name, written)
    write_json(folder / 'program.json', described)
    write_json(folder / 'inputs.json', {name: plain_input(field) for name, field in source.task.inputs.items()})
    labels = labels_of(source.task.decode, written.outputs)
    if labels:
        write_json(folder / 'labels.json', labels)
    for name, new in PREPARED.items():
        if (source.workdir / 'prepared' / name).exists() and not (folder / new).exists():
            (folder / new).write_bytes((source.workdir / 'prepared' / name).read_bytes())
    if written.weights:
        save_arrays(folder / 'weights.safetensors', written.weights)
    vectors = {f'inputs/{name}': value for name, value in written.inputs.items()}
    vectors |= {f'outputs/{name}': value for name, value in written.outputs.items()}
    if vectors:
        save_arrays(folder / 'vectors.safetensors', vectors)
    if written.runner:
        shutil.copyfile(RUNNERS / written.runner, folder / 'run.py')
    files = sorted(file.name for file in folder.iterdir())
    readme = written.card + readme_text(source, described, written.promise, files)
    (folder / 'README.md').write_text(readme, encoding='utf-8')
    (folder / 'LICENSE').write_text(license_text(source), encoding='utf-8')
    write_manifest(folder)


def describe(source: Source, format_name: str, written: Written) -> dict[str, Any]:
    """The content of program.json."""
    return {
        'format': format_name,
        'task': source.config.task.get('name', ''),
        'programs': dict(written.programs),
        'main': written.main,
        'batch': 'any' if written.any_batch else 1,
        'tolerance': written.tolerance,
        'packages': {name: importlib.metadata.version(name) for name in written.packages},
        'parameters': int(sum(value.size for value in written.weights.values())),
        **written.more,
    }


def labels_of(decode: Callable[[Mapping[str, np.ndarray]], Any], outputs: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the classes in the order of the output 'probability', read from the answers of a task."""
    probability = outputs.get('probability')
    if probability is None or probability.ndim != 2:
        return []
    row = {name: value[0] for name, value in outputs.items()}
    names = []
    for chosen in np.eye(probability.shape[1], dtype=np.float32):
        answer = decode({**row, 'probability': chosen})
        labels = answer.get('labels', [answer.get('label')]) if isinstance(answer, Mapping) else [None]
        names += labels if len(labels) == 1 else [None]
    return [str(name) for name in names] if all(name is not None for name in names) else []


def plain_input(field: Any) -> dict[str, Any]:
    """An `Input` for JSON."""
    items = {name: plain_input(item) for name, item in field.items.items()}
    return {**field._asdict(), 'shape': list(field.shape), 'items': items}


def write_json(file: Path, values: Any) -> None:
    file.write_text(json.dumps(values, indent=1, ensure_ascii=False), encoding='utf-8')


def save_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    file.write_bytes(save({name: np.array(value, order='C') for name, value in arrays.items()}))


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, read in parts."""
    digest = hashlib.sha256()
    with file.open('rb') as opened:
        while part := opened.read(HASH_BYTES):
            digest.update(part)
    return digest.hexdigest()


def write_manifest(folder: Path) -> None:
    """Writes the SHA-256 of every file, as `sha256sum` prints them."""
    files = sorted(file for file in folder.rglob('*') if file.is_file() and file.name != MANIFEST)
    lines = [f'{sha256_of(file)}  {file.relative_to(folder).as_posix()}\n' for file in files]
    (folder / MANIFEST).write_text(''.join(lines), encoding='utf-8')
