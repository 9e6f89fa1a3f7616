"""environment.json: versions, devices, command and times of a run."""

import contextlib
import dataclasses
import importlib.metadata
import json
import pathlib
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from research.core.logs import write_text
from research.core.runspec import RunSpec

PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy')


def describe_devices(mesh: jax.sharding.Mesh | None = None) -> dict[str, Any]:
    """Platform, kind and number of the devices, number of processes, and the size of each mesh axis."""
    devices = list(mesh.devices.flat) if mesh is not None else jax.devices()
    return {
        'platform': devices[0].platform,
        'kind': devices[0].device_kind,
        'count': len(devices),
        'processes': jax.process_count(),
        'mesh': {str(name): int(size) for name, size in mesh.shape.items()} if mesh is not None else {},
    }


def commit() -> str:
    """The commit of a checkout of this project, with '-dirty' for uncommitted changes; '' elsewhere."""
    root = pathlib.Path(__file__).parents[2]
    if not (root / '.git').exists():
        return ''
    describe = ['git', '-C', str(root), 'describe', '--always', '--dirty', '--abbrev=12', '--exclude=*']
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return subprocess.run(describe, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return ''


def store_environment(spec: RunSpec, workdir: epath.Path, times: Mapping[str, float], seconds: float) -> None:
    """Writes versions, devices, command, the time of each stage, and the total time of earlier starts.

    Starts that were killed are not counted.
    """
    file = workdir / 'environment.json'
    previous: dict[str, Any] = {}
    if file.exists():
        with contextlib.suppress(ValueError):  # a torn file: only its times are lost
            previous = json.loads(file.read_text())
    environment = {
        'command': shlex.join(['python', *sys.argv]),
        'finished': time.strftime('%Y-%m-%d %H:%M:%S %Z'),
        'commit': commit(),
        'python': platform.python_version(),
        'system': f'{platform.system()} {platform.machine()}',
        'versions': {name: importlib.metadata.version(name) for name in PACKAGES},
        'devices': describe_devices(spec.mesh),
        'mesh': dataclasses.asdict(spec.config.mesh),
        'stages': {name: round(value, 3) for name, value in times.items()},
        'seconds': seconds,
        'seconds_before': round(previous.get('seconds_before', 0.0) + previous.get('seconds', 0.0), 1),
    }
    write_text(file, json.dumps(environment, indent=2))
