"""What JAX runs on, and where it keeps compiled programs."""

import importlib.metadata
import importlib.util
import os
import pathlib


def choose_platform() -> None:
    """Keeps JAX on the CPU where libtpu is installed to plan only; before the first computation.

    JAX would ask for a TPU for minutes, and complain of a machine without one before it takes the CPU.
    """
    import jax

    if only_plans():
        jax.config.update('jax_platforms', 'cpu')


def only_plans() -> bool:
    """Returns whether libtpu is there to plan only: JAX saw no TPU, has no other accelerator and no platform is set."""
    import jax

    if os.environ.get('JAX_PLATFORMS') or jax.config.jax_platforms or not importlib.util.find_spec('libtpu'):
        return False  # where JAX sees a TPU it has set the platforms itself
    return not importlib.util.find_spec('jax_plugins') and not importlib.metadata.entry_points(group='jax_plugins')


def keep_compiled_programs(folder: pathlib.Path) -> None:
    """Switches JAX's persistent compilation cache on; without a folder of this user's own, nothing is kept."""
    import jax

    if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owned = not hasattr(os, 'getuid') or folder.stat().st_uid == os.getuid()  # programs of others are not run
    except OSError:
        return
    if owned and os.access(folder, os.W_OK):
        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
