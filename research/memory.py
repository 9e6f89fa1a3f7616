"""Device memory: the needs of a compiled program, and the message for an out-of-memory error."""

import re
from collections.abc import Mapping
from typing import Any

import jax

from research.units import bytes_text


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory, while compiling or running."""
    return isinstance(error, jax.errors.JaxRuntimeError) and (
        'RESOURCE_EXHAUSTED' in str(error) or 'out of memory' in str(error).lower()
    )


def out_of_memory_message(
    error: BaseException, numbers: Mapping[str, Any], settings: Mapping[str, Any]
) -> str:
    """The message for an out-of-memory error: the numbers, and the settings to change.

    Args:
      error: the error; the numbers in its text are quoted.
      numbers: the result of `compiled_memory`; empty when compiling itself failed.
      settings: the resolved config as nested dicts, as in config.json.
    """
    train, mesh = settings.get('train', {}), settings.get('mesh', {})
    batch, parts = train.get('batch_size', 1), train.get('microbatches', 1)
    lines = ['The device ran out of memory.']
    requested = re.search(r'allocat\w*\s+([\d.]+)\s*([KMGT]i?B?|bytes|B)?', str(error))
    if requested:
        size, unit = float(requested[1]), requested[2] or 'bytes'
        lines[0] += (
            f' It requested {bytes_text(size) if unit in ("bytes", "B") else f"{requested[1]} {unit}"} more.'
        )
    used = re.search(r'[Uu]sed ([\d.]+\s?[KMGT]i?B?) of ([\d.]+\s?[KMGT]i?B?)', str(error))
    if used:
        lines.append(f'The compiled program needs {used[1]} and the device has {used[2]}.')
    if numbers:
        lines.append(memory_text(numbers))
    more = next((count for count in range(parts + 1, batch + 1) if batch % count == 0), 0)
    lines.append(
        f'Change one of these (now: batch_size {batch}, microbatches {parts}, fsdp {mesh.get("fsdp", 1)}):'
    )
    if more:
        lines.append(f'  --config.train.microbatches={more}   the same batch in {more} parts: less memory')
    smaller = f'--config.train.batch_size={max(1, batch // 2)}   a smaller batch; the result changes'
    if settings.get('model', {}).get('remat') is False:
        lines.append('  --config.model.remat=True   recompute activations: less memory, slower')
    lines.append(f'  {smaller}' if batch > 1 else '  a smaller model: the batch is already 1')
    devices = jax.device_count()
    if devices > 1 and mesh.get('fsdp', 1) < devices:
        lines.append(
            f'  --config.mesh.fsdp={devices}   parameters and optimizer state split over {devices} devices'
        )
    else:
        lines.append(
            f'  --config.mesh.fsdp=N   on N devices, each stores a part of the parameters (here: {devices})'
        )
    return '\n'.join(lines)


def compiled_memory(compiled: Any) -> dict[str, Any]:
    """The memory that a compiled function needs on each device, in bytes, as the compiler reports it.

    'total' is arguments + outputs + temporaries - aliased: a donated argument shares its memory with an
    output. On CPU it is an estimate: the compiler keeps temporaries, such as attention matrices, that
    accelerators never form.

    Args:
      compiled: the result of `jax.jit(...).lower(...).compile()`.

    Returns:
      {'arguments', 'outputs', 'temporaries', 'aliased', 'total', 'limit' (of a device; 0 if unknown),
      'estimate'}; empty if the backend reports nothing.
    """
    stats = compiled.memory_analysis()
    if stats is None:
        return {}
    device = compiled.runtime_executable().local_devices()[0]
    numbers = {
        'arguments': int(stats.argument_size_in_bytes),
        'outputs': int(stats.output_size_in_bytes),
        'temporaries': int(stats.temp_size_in_bytes),
        'aliased': int(stats.alias_size_in_bytes),
    }
    numbers['total'] = sum(numbers.values()) - 2 * numbers['aliased']
    numbers['limit'] = int((device.memory_stats() or {}).get('bytes_limit', 0))
    return {**numbers, 'estimate': device.platform == 'cpu'}


def memory_text(numbers: Mapping[str, Any]) -> str:
    """The result of `compiled_memory` as one sentence."""
    parts = ', '.join(
        f'{name} {bytes_text(numbers[name])}' for name in ('arguments', 'outputs', 'temporaries')
    )
    shared = f', of which shared {bytes_text(numbers["aliased"])}' if numbers['aliased'] else ''
    text = f'{bytes_text(numbers["total"])} on each device ({parts}{shared})'
    if numbers.get('limit'):
        text += f' of {bytes_text(numbers["limit"])}'
        text += ': this will not fit' if numbers['total'] > numbers['limit'] else ''
    return text + (' - an estimate on CPU' if numbers['estimate'] else '')
