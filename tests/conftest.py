"""Eight fake CPU devices for every test, and compiled programs shared by all processes and kept for the next run.

Options: --shapes checks the shapes in signatures; --production compiles with the settings that training uses.
"""

import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import sys
import time
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
CACHE_BYTES, CACHE_DAYS = 500 * 2**20, 7

for option in ('--shapes', '--production'):  # before JAX starts, and for the workers, which do not see the command line
    if option in sys.argv:
        os.environ[f'TESSERA_TEST_{option[2:].upper()}'] = '1'
SHAPES, PRODUCTION = (os.environ.get(f'TESSERA_TEST_{name}') for name in ('SHAPES', 'PRODUCTION'))

os.environ.setdefault('JAX_PLATFORMS', 'cpu')


def keep_programs_apart() -> None:
    """Lets one process import several programs, which define flags of the same names."""
    from absl import flags

    define = flags.FlagValues.__setitem__

    def redefine(values: flags.FlagValues, name: str, flag: flags.Flag) -> None:
        if name in values:
            values[name].unparse()  # absl only replaces a flag that has its default
        flag.allow_override = True
        define(values, name, flag)

    flags.FlagValues.__setitem__ = redefine


keep_programs_apart()
os.environ['TESSERA_FETCH'] = '0'  # no test reaches for the network; those of fetching have a server of their own
# Tests compile far more than they compute: without the expensive passes the suite takes a third of the time.
FLAGS = '--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true'
if importlib.metadata.version('jax').startswith('0.10.'):
    # A fifth and a third less to compile; other versions may not know these flags.
    FLAGS += ' --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
if not PRODUCTION and FLAGS not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {FLAGS}'.strip()


def compiled_programs() -> pathlib.Path:
    """Returns the folder of compiled programs for these versions and flags, emptied where it is old or large.

    JAX never replaces an entry that a killed run left torn, so the folder does not live for ever.
    """
    versions = f'{importlib.metadata.version("jaxlib")} {platform.machine()} {os.environ.get("XLA_FLAGS", "")}'
    folder = ROOT / '.cache' / 'tests' / hashlib.sha256(versions.encode()).hexdigest()[:16]
    if folder.exists():
        age = time.time() - folder.stat().st_ctime
        if age > CACHE_DAYS * 86400 or sum(file.stat().st_size for file in folder.iterdir()) > CACHE_BYTES:
            shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


if not os.environ.get('JAX_COMPILATION_CACHE_DIR'):  # workers and the programs that tests start inherit it
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(compiled_programs())
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0.05'

import jax  # noqa: E402
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
# A hook slows every function of a module: only where shapes stand, and not in readers, which are called for each row.
SHAPED = [file for file in ROOT.glob('research/**/*.py') if 'jaxtyping' in file.read_text(encoding='utf-8')]
NAMES = ['.'.join(file.relative_to(ROOT).with_suffix('').parts) for file in SHAPED if file.parent.name != 'readers']
if SHAPES:
    jaxtyping.install_import_hook(NAMES, 'shapes.checked')  # before anything of ours is imported

jax.config.update('jax_num_cpu_devices', 8)  # before the first operation


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options that were read above."""
    parser.addoption('--shapes', action='store_true', help='check the shapes in signatures')
    parser.addoption('--production', action='store_true', help='compile with the settings that training uses')


def data_folder() -> pathlib.Path:
    """Returns the folder of the benchmark data sets: $TESSERA_DATA, or one beside the repository; it may be absent."""
    return pathlib.Path(os.environ.get('TESSERA_DATA', ROOT.parent / 'shared' / 'data'))


@pytest.fixture
def data() -> pathlib.Path:
    """The folder of the benchmark data sets; the test is skipped, with the reason, where it is absent."""
    if not data_folder().is_dir():
        pytest.skip('benchmark data is absent: set TESSERA_DATA to its folder')
    return data_folder()


@pytest.fixture(scope='session')
def started(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(config) -> its plan at ':tiny' and its first state, kept until another config is asked for.

    A worker runs the tests of a config one after another, in whichever modules: see `group`.
    """
    from contract import first_state, plan_of
    from etils import epath

    @functools.lru_cache(maxsize=1)
    def start(name: str) -> Any:
        planned = plan_of(name, epath.Path(tmp_path_factory.mktemp('contract')))
        return planned, first_state(planned)

    return start


ALONE = ('test_resume.py', 'test_processes.py', 'test_matrix.py')  # whose tests share nothing and take long


THOROUGH = ('tasks', 'interop', 'methods')  # folders whose tests train or compile whole tasks


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks as slow what trains whole tasks or reads whole data sets: not for every commit."""
    if item.path.parent.name in THOROUGH or 'data' in item.fixturenames:
        item.add_marker(pytest.mark.slow)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest tests first, so that no worker ends with them alone."""
    items.sort(key=lambda item: item.path.name not in ALONE)


def group(name: str) -> str:
    """Returns what stays together on a worker: the tests of a file, or of a config, which is then built once."""
    file, built = name.split('::')[0], re.search(r'\[(configs/[\w/]+\.py)', name)
    return name if pathlib.Path(file).name in ALONE else built.group(1) if built else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Returns a scheduler that hands out groups in the order of collection."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)
