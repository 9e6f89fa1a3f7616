"""Folders of the Hugging Face hub: their location, and the tensors in their .safetensors files."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import ml_dtypes  # noqa: F401  makes bfloat16 known to NumPy, for safetensors
import numpy as np
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from research.data.readers import json_text
from research.errors import UserError

INDEX = 'model.safetensors.index.json'
SINGLE = 'model.safetensors'
WANTED = (
    'config.json', 'model*.safetensors', INDEX, 'tokenizer.json', 'tokenizer_config.json', 'vocab.txt', 'vocab.json',
    'merges.txt', 'spiece.model', 'source.spm', 'target.spm', 'preprocessor_config.json', 'generation_config.json',
    'chat_template.jinja',
)  # fmt: skip


class WeightsSource(NamedTuple):
    """A local folder with weights, the name it was requested by, and the commit (hub only)."""

    folder: Path
    name: str
    revision: str


def locate(name: str, revision: str = '') -> WeightsSource:
    """Finds the folder `name`, or downloads the hub repository of that name unless it is cached.

    Args:
      name: a folder with a config.json, or 'bert-base-uncased', 'Qwen/Qwen3-0.6B'.
      revision: branch, tag or commit of the hub; '' is the newest. HF_ENDPOINT chooses another hub, HF_HOME the
        cache.

    Raises:
      UserError: if there is no such folder or repository, or the hub cannot be reached.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision:
            raise UserError(f'config.model.revision={revision!r}: {name!r} is a folder, which has no revisions')
        return WeightsSource(folder, str(folder.resolve()), '')
    if not re.fullmatch(r'[\w.-]+(/[\w.-]+)?', name) or name.startswith('.'):
        raise UserError(f'config.model.weights={name!r}: no such folder, and not a valid repository name')
    try:
        snapshot = huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=list(WANTED))
    except RevisionNotFoundError:
        raise UserError(f'config.model.revision={revision!r}: {name!r} has no such revision') from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError(
            f'config.model.weights={name!r}: there is no such folder here, and no such public repository at '
            f'{endpoint()}'
        ) from None
    except (OSError, HfHubHTTPError, ValueError, RuntimeError) as error:  # any error of the network layer
        reason = str(error).strip().split('\n')[0][:200]
        raise UserError(
            f'config.model.weights={name!r}: there is no such folder here, it is not in the cache, and {endpoint()} '
            f'could not be reached ({type(error).__name__}: {reason}). Go online, set HF_ENDPOINT to a mirror, or '
            'give a folder with config.json and model.safetensors'
        ) from None
    return WeightsSource(Path(snapshot), name, Path(snapshot).name)


def endpoint() -> str:
    return os.environ.get('HF_ENDPOINT', huggingface_hub.constants.ENDPOINT)


def read_json(file: Path) -> dict[str, Any]:
    """Reads the object in a JSON file of a model folder.

    Raises:
      UserError: if it is missing or damaged.
    """
    if not os.path.lexists(file):
        raise UserError(f'{file.parent} has no {file.name}: it is not a Hugging Face model folder')
    return json_text.read_json(file, lambda text: UserError(text.replace(str(file), f'{file} is damaged', 1)))


class Tensors:
    """The tensors of a folder by name, from one or several files, read on access."""

    def __init__(self, folder: Path):
        self.files = tensor_files(folder)
        self.opened: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        file = self.files[name]
        try:
            if file not in self.opened:
                self.opened[file] = safe_open(file, framework='numpy')
            return self.opened[file].get_tensor(name)
        except (SafetensorError, FileNotFoundError, TypeError, KeyError) as error:
            raise UserError(f'{file}: tensor {name!r} cannot be read: {error}') from None


def tensor_files(folder: Path) -> dict[str, Path]:
    """{tensor name: its file}.

    Raises:
      UserError: if there are none, or a file is missing or damaged.
    """
    if (folder / INDEX).exists():
        listed = {name: folder / file for name, file in weight_map(folder).items()}
        files = sorted(set(listed.values()))
    elif (folder / SINGLE).exists():
        listed, files = {}, [folder / SINGLE]
    else:
        others = sorted(file.name for file in folder.glob('*.bin'))
        hint = f'; {others[0]} holds pickled weights: save them as safetensors first' if others else ''
        raise UserError(f'{folder} has neither {SINGLE} nor {INDEX}{hint}')
    files_of: dict[str, Path] = {}
    for file in files:
        if file.exists() and not file.is_file():
            raise UserError(f'{file} is not a regular file')
        try:
            with safe_open(file, framework='numpy') as opened:
                files_of.update(dict.fromkeys(opened.keys(), file))
        except FileNotFoundError:
            raise UserError(f'{folder / INDEX} names {file.name}, which is missing') from None
        except SafetensorError as error:
            raise UserError(f'{file} is damaged: {error}') from None
    absent = [name for name, file in listed.items() if files_of.get(name) != file]
    if absent:
        raise UserError(f'{folder / INDEX}: tensor {absent[0]!r} is not in {listed[absent[0]].name}')
    return files_of


def weight_map(folder: Path) -> dict[str, str]:
    """The {tensor: file} map of an index; raises UserError if it is invalid or names a file outside the folder."""
    entries = read_json(folder / INDEX).get('weight_map', {})
    names = entries.values() if isinstance(entries, dict) else (None,)
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith('.safetensors'):
            raise UserError(f'{folder / INDEX} is damaged: {name!r:.60} names no .safetensors file of the folder')
    return entries


def write_tensors(folder: Path, tensors: Mapping[str, np.ndarray], shard_bytes: int) -> None:
    """Writes tensors as one file, or as shards of about `shard_bytes` with an index."""
    shards: list[dict[str, np.ndarray]] = [{}]
    for name, tensor in tensors.items():
        if shards[-1] and total(shards[-1].values()) + tensor.nbytes > shard_bytes:
            shards.append({})
        shards[-1][name] = np.ascontiguousarray(tensor)
    metadata = {'format': 'pt'}  # readers require the library of the layout
    if len(shards) == 1:
        save_file(shards[0], folder / SINGLE, metadata)
        return
    weight_map = {}
    for number, shard in enumerate(shards, 1):
        file = f'model-{number:05d}-of-{len(shards):05d}.safetensors'
        save_file(shard, folder / file, metadata)
        weight_map.update(dict.fromkeys(shard, file))
    index = {'metadata': {'total_size': total(tensors.values())}, 'weight_map': weight_map}
    (folder / INDEX).write_text(json.dumps(index, indent=2))


def total(tensors: Iterable[np.ndarray]) -> int:
    return sum(tensor.nbytes for tensor in tensors)
