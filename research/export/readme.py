"""README.md and LICENSE of an exported folder."""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

from research.core.config import with_name
from research.core.environment import commit
from research.core.metrics import read_metrics

ENCODED = {  # what the encoded inputs hold
    'image': 'pixels in [0, 1], height x width x channels, at exactly this size',
    'audio': 'samples in [-1, 1] at the sampling rate of the model, cut or padded to this length',
    'features': 'features of each frame, or the ids of n-grams',
    'frames': 'number of frames that are not padding',
    'numbers': 'numeric columns, standardized by the mean and deviation in columns.json',
    'categories': 'categorical columns, as their place in columns.json',
    'bases': 'one-hot letters A, C, G, T; padded with zeros',
    'tokens': 'ids of tokens; 0 after the text',
    'source': 'ids of the tokens of the source; 0 after the text',
    'length': 'number of tokens that are not padding',
    'source_length': 'number of tokens of the source that are not padding',
    'positions': 'positions of the hidden tokens',
    'types': '0 for tokens of the first text, 1 for those of the second',
    'level': 'strength of the degradation, scaled as in training',
    'label': 'class of the wanted picture; -1: any',
    'index': 'number of the row, from which its random numbers derive',
    'random_seed': 'seed of sampled answers',
    'draw': 'seed of the augmentation, not used here',
}
HOST = {  # what the package does with a field of a request before the program, and run.py does not
    'text': (
        'Texts are not tokenized by run.py: a tokenizer is a second library. Where the folder has tokenizer.json, '
        "`tokenizers.Tokenizer.from_file('tokenizer.json').encode(text).ids` gives the ids (pip install tokenizers)."
    ),
    'sequence': 'Letters are not encoded by run.py: give one-hot rows in the order A, C, G, T.',
    'image': 'Picture files are not opened or resized by run.py: give arrays, such as `numpy.asarray(picture) / 255`.',
    'audio': 'Sound files are not read or resampled by run.py: give samples; their spectrogram is part of the program.',
    'number': 'Numbers of a table are standardized before the program: (value - mean) / deviation, as in columns.json.',
    'category': 'Categories are given by their numbers.',
    'array': 'Arrays are padded to the shape of the program.',
    'list': 'Lists are padded to the shape of the program.',
}


def readme_text(source: Any, described: Mapping[str, Any], promise: str, files: Sequence[str]) -> str:
    """README.md: what the folder holds, how to run it, and where it comes from."""
    config, task = source.config, source.task
    name = f'{config.task.get("name", "")}, trained on {data_of(config)}'
    main = described['programs'].get(described['main'], {})
    kinds = dict.fromkeys(field.kind for field in task.inputs.values())
    parts = [
        f'# {name}\n\nA trained model of Tessera in the format `{described["format"]}`.\n',
        run_part(described, 'run.py' in files),
        table('Inputs of the program', main.get('inputs', {}), ENCODED) if main else '',
        '\n'.join(f'- {HOST[kind]}' for kind in kinds if kind in HOST) + '\n' if main else '',
        'Requests that the package splits into parts (long texts, large pictures) are one part here.\n'
        if task.split else '',
        table('Outputs of the program', main.get('outputs', {}), {}) if main else '',
        f'## How long the files stay readable\n\n{promise}\n' if promise else '',
        provenance(source, described),
        f'## Files\n\n{", ".join(f"`{file}`" for file in files)}, `README.md`, `LICENSE`, `MANIFEST.sha256` '
        '(check with `sha256sum -c MANIFEST.sha256`). `vectors.safetensors` holds eight encoded rows of the task or '
        'its test split, with the answers of the model: leave it out where these rows are private.\n',
    ]  # fmt: skip
    return '\n'.join(part for part in parts if part)


def data_of(config: Any) -> str:
    """The name of the training data."""
    data = with_name(config.data)
    return str(data.get('name') or data.get('source') or 'own data')


def run_part(described: Mapping[str, Any], has_runner: bool) -> str:
    """How to run the folder."""
    if not has_runner:
        return ''
    packages = described['packages']
    runtime = next(iter(packages))
    return (
        f'## Run it\n\n    pip install numpy {runtime}=={packages[runtime]}\n    python run.py\n'
        '    python run.py inputs.npz outputs.npz\n\n'
        'Without arguments it repeats the test vectors. `inputs.npz` holds encoded arrays by name. '
        f'Rows are answered {"together, any number of them" if described["batch"] == "any" else "one at a time"}.\n'
    )


def table(title: str, entries: Mapping[str, Any], about: Mapping[str, str]) -> str:
    """A table of arrays."""
    lines = [f'## {title}\n', '| name | type | shape | content |' if about else '| name | type | shape |']
    lines += ['|---|---|---|---|' if about else '|---|---|---|']
    for name, entry in entries.items():
        cells = [f'`{name}`', entry['dtype'], ' x '.join(map(str, entry['shape'])) or 'one number']
        lines.append(f'| {" | ".join([*cells, about.get(name, "")] if about else cells)} |')
    return '\n'.join(lines) + '\n'


def provenance(source: Any, described: Mapping[str, Any]) -> str:
    """Where the model comes from, and how good it is."""
    lines = [
        '## Where it comes from\n',
        f'- Data: {data_of(source.config)}; settings `{settings_text(source.config.data)}`',
        f'- Task: `{settings_text(source.config.task)}`',
        f'- Training: step {source.step:,}, seed {source.config.seed}; code {commit() or tessera_version()}',
        '- Exported with ' + ', '.join(f'{name} {version}' for name, version in described['packages'].items()),
    ]
    entry = read_metrics(source.workdir).get('test')
    if entry is None:
        return '\n'.join([*lines, '- Metrics: the run has none of its test split\n'])
    lines += ['', '| metric of the test split | value | baseline | |', '|---|---|---|---|']
    for name, row in entry['metrics'].items():
        if not isinstance(row['value'], list):
            baseline = '' if row['baseline'] is None else f'{row["baseline"]:.5g}'
            lines.append(f'| {name} | {row["value"]:.5g} | {baseline} | {row["about"]} |')
    return '\n'.join(lines) + '\n'


def settings_text(section: Mapping[str, Any]) -> str:
    """A section of the config as JSON, with only the last part of paths: the folder may be passed on."""

    def shareable(value: Any) -> Any:
        if isinstance(value, str) and ('/' in value or '\\' in value):
            return value.replace('\\', '/').rstrip('/').rpartition('/')[2]
        if isinstance(value, Mapping):
            return {name: shareable(item) for name, item in value.items()}
        return [shareable(item) for item in value] if isinstance(value, (list, tuple)) else value

    return json.dumps(shareable(with_name(section)), default=str, ensure_ascii=False)


def tessera_version() -> str:
    try:
        return f'tessera {importlib.metadata.version("tessera")}'
    except importlib.metadata.PackageNotFoundError:
        return 'an unknown version'


def license_text(source: Any) -> str:
    """LICENSE: what is known, and what the owner of the weights decides."""
    return (
        'run.py is part of Tessera, Apache License 2.0 (https://www.apache.org/licenses/LICENSE-2.0).\n\n'
        f'The weights and the test vectors derive from the data "{data_of(source.config)}". Its licence decides what '
        'may be done with them; so does that of published weights, if the training started from some. Whoever trained '
        'the model states the licence of the weights here before the folder is passed on.\n'
    )
