"""The platform of JAX, and its cache of compiled programs."""

import importlib.metadata
import importlib.util
import os
import pathlib


def choose_platform() -> None:
    """Selects the CPU if libtpu is only installed for planning; call it before the first computation.

    Otherwise libtpu probes for a TPU for minutes and logs errors before the CPU fallback.
    """
    import jax

    if only_plans():
        jax.config.update('jax_platforms', 'cpu')


def only_plans() -> bool:
    """Whether libtpu is only used for planning: no TPU, no other accelerator, and no platform is set."""
    import jax

    if os.environ.get('JAX_PLATFORMS') or jax.config.jax_platforms or not importlib.util.find_spec('libtpu'):  # pyright: ignore[reportAttributeAccessIssue]
        return False  # on a TPU, JAX has set the platforms itself
    return not importlib.util.find_spec('jax_plugins') and not importlib.metadata.entry_points(group='jax_plugins')


def keep_compiled_programs(folder: pathlib.Path) -> None:
    """Enables JAX's persistent compilation cache, if the folder belongs to this user."""
    import jax

    if os.environ.get('JAX_COMPILATION_CACHE_DIR'):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        owned = not hasattr(os, 'getuid') or folder.stat().st_uid == os.getuid()  # never run programs of others
    except OSError:
        return
    if owned and os.access(folder, os.W_OK):
        jax.config.update('jax_compilation_cache_dir', str(folder))
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.5)
