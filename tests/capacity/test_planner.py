"""Plans: memory against what is compiled, the search for a batch, what an overflow says, flags."""

import dataclasses
import io
import json

import jax
import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from research import api
from research.capacity import aot
from research.capacity import planner as planning
from research.capacity.chips import read_topology
from research.capacity.collectives import Collective
from research.capacity.planner import Planner, make_report, read_mesh, search_batch
from research.capacity.roofline import estimate
from research.capacity.text import plan_text, print_plan
from research.core.config import MeshSettings
from research.errors import UserError

GIB = 2**30


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """What the language model prepares, once."""
    folder = epath.Path(tmp_path_factory.mktemp('plan'))
    api.prepare(api.read('configs/gpt.py:tiny'), folder)
    return folder


@pytest.fixture
def tiny():
    """The tiny config split over all axes."""
    config = api.read('configs/gpt.py:tiny')
    return dataclasses.replace(config, mesh=MeshSettings(data=2, fsdp=2, tensor=2, min_shard_size=64))


def make_planner(folder, topology='h100:8', **chip):
    topology = read_topology(topology)
    topology = topology._replace(chip=topology.chip._replace(**chip))
    target = aot.find_target(topology, 'cpu')
    return Planner(target, lambda config: api.build(config, folder))


def test_parts_add_up_to_what_the_compiler_takes(folder, tiny):
    planner = make_planner(folder)
    report = make_report(planner, tiny, 0, lambda topology: planner.target)
    memory = report['memory']
    parts = ('parameters', 'statistics', 'average', 'optimizer', 'batch')
    parts += ('padding', 'temporaries', 'outputs', 'program')
    assert memory['total'] == sum(memory[name] for name in parts)
    given_to_step = sum(memory[name] for name in parts[:5])
    # arguments as compiled are the closed formula, but for scalars and alignment
    assert memory['padding'] < 0.02 * given_to_step + 64
    # Adam keeps two moments of the parameters' shapes; its count and the schedule's are scalars
    assert 0 <= memory['optimizer'] - 2 * memory['parameters'] <= 64
    assert memory['fits'] and not report['exact'] and report['attempts'] == []
    assert report['collectives'] and report['time']['expected'] > 0
    text = plan_text({'config': 'configs/gpt.py:tiny', **report})
    assert 'An estimate' in text and 'It fits.' in text and 'step = max(compute, memory)' in text
    stream = io.StringIO()
    print_plan({'config': 'x', **report}, Console(file=stream, force_terminal=True, width=140))
    assert 'Memory on each chip' in stream.getvalue()
    json.dumps(report)


@pytest.fixture
def modelled(monkeypatch):
    """Compiling is replaced by a formula: state, gradients, and 40 KiB for each row that a device works on."""
    calls = []

    def build(plan, target):
        train, mesh = plan.config.train, plan.mesh.shape
        rows = train.batch_size / train.microbatches / (mesh['data'] * mesh['fsdp'])
        activations = rows * 40 * 1024 / mesh['tensor'] * (1 if plan.config.model['remat'] else 2)
        total, usable = aot.fixed_bytes(plan) + activations, target.topology.chip.usable
        calls.append(plan.config)
        if total > usable:
            return aot.CompiledStep({'total': total}, '', 1.0, usable)
        return aot.CompiledStep({'total': total, 'temporaries': activations}, '', 1.0, 0)

    monkeypatch.setattr(aot, 'build', build)
    return calls


def test_an_overflow_says_by_how_much_and_three_settings_that_fit(folder, tiny, modelled):
    config = dataclasses.replace(planning.with_batch(tiny, 64), model={**tiny.model, 'remat': False})
    planner = make_planner(folder, usable=700 * 1024.0)
    report = make_report(planner, config, 3, lambda topology: planner.target)
    over = report['memory']['total'] - 700 * 1024
    assert over > 0 and report['memory']['over'] == over
    fitting = [each for each in report['attempts'] if each['fits']]
    assert len(fitting) >= 3
    text = plan_text({'config': 'x', **report})
    assert f'Does not fit: each chip needs {report["memory"]["total"] / 1024:.2f} KiB' in text
    assert f'{over / 1024:.2f} KiB too much' in text
    for each in fitting:  # what is said to fit does: the settings, read back from the flags
        changed = apply_flags(config, each['flags'])
        assert planner.fits(planner.build(changed, '')), each
        assert each['total'] <= 700 * 1024


def apply_flags(config, flags):
    for flag in flags.split():
        name, _, value = flag.partition('=')
        if name == '--mesh':
            config = dataclasses.replace(config, mesh=read_mesh(value, read_topology('h100:8'), config.mesh))
            continue
        _, section, key = name.split('.')
        if section == 'model':
            config = planning.with_model(config, **{key: {'True': True}.get(value, value)})
        else:
            config = dataclasses.replace(config, train=dataclasses.replace(config.train, **{key: int(value)}))
    return config


def test_a_program_that_cannot_be_read_says_what_is_missing(folder, tiny, modelled):
    planner = make_planner(folder)
    text = plan_text({'config': 'x', **make_report(planner, tiny, 0, lambda topology: planner.target)})
    assert 'unknown' in text and 'no communication is in the time' in text


def test_state_that_is_too_large_is_not_compiled(folder, tiny, modelled):
    planner = make_planner(folder, usable=10 * 1024.0)
    report = make_report(planner, tiny, 2, lambda topology: planner.target)
    assert modelled == [] and not report['memory']['fits'] and not report['memory']['compiled']
    assert 'at least' in plan_text({'config': 'x', **report})
    assert not any(each['fits'] for each in report['attempts'])


@given(st.integers(1, 200), st.integers(0, 50), st.floats(0.5, 3), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_the_search_brackets_the_largest_batch(first, fixed, slope, limit):
    calls = []

    def measure(rows):
        calls.append(rows)
        return fixed + slope * rows / 8

    found = search_batch(measure, 8, first * 8, measure(first * 8), fixed, limit, 12)
    guess = int((limit - fixed) / slope) if limit >= fixed else 0
    near = range(max(guess - 1, 0), guess + 2)  # the division may round either way
    right = max((count for count in near if fixed + slope * count <= limit), default=0)
    assert len(calls) <= 13 and found.largest % 8 == 0
    assert found.largest <= max(right, 0) * 8
    if found.smallest_over:
        assert found.smallest_over > max(right, 0) * 8
    if right > 0 and found.smallest_over:  # a sixteenth, or one unit
        assert found.smallest_over - found.largest <= max(8, found.largest // 16) or len(calls) == 13


def test_the_search_needs_few_compiles():
    found = search_batch(lambda rows: 3e9 + 1e8 * rows, 4, 8, 3.8e9, 3e9, 15.75 * GIB, 3)
    assert found.largest == 136 and len(found.tried) <= 4
    nothing = search_batch(lambda rows: 20 * GIB, 4, 16, 30 * GIB, 3e9, 15.75 * GIB, 3)
    assert nothing.largest == 0


def test_messages_of_the_tpu_compiler():
    used = 'RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 16.92G of 15.75G hbm.'
    assert aot.overflow(used) == (16.92 * GIB, 15.75 * GIB)
    other = 'memory required for HLO temporaries (512.00M) exceeds available HBM (15.75G). HLO module: jit_step'
    assert aot.overflow(other) == (0.5 * GIB, 15.75 * GIB)
    assert aot.overflow('something else') is None


def test_expected_time_is_the_roofline_with_what_nothing_hides():
    topology = read_topology('v5e:16x16')
    memory = {'total': 819e6, 'temporaries': 0.0}
    hidden = Collective('all-gather', 200e9 * 0.001 * 256 / 255, 256, 1, True)
    cost = estimate(topology, memory, 256 * 197e12 * 0.01, 0, [hidden], False)
    assert cost.compute == pytest.approx(0.01) and cost.communication == pytest.approx(0.001)
    assert cost.expected == pytest.approx(0.01) and cost.share == pytest.approx(1) and cost.bound == 'compute'
    alone = hidden._replace(overlaps=False)
    assert estimate(topology, memory, 256 * 197e12 * 0.01, 0, [alone], False).expected == pytest.approx(0.011)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('data:8,fdsp:8', "did you mean 'fsdp'"),
        ('data:8', 'makes 8 devices and v5e:8x8 has 64 chips'),
        ('data:-1,fsdp:24', 'must divide'),
        ('data', 'write data:8'),
        ('data:x', 'write data:8'),
        ('data:0', 'write data:8'),
    ],
)
def test_wrong_meshes_say_what_is_right(text, message):
    with pytest.raises(UserError, match=message):
        read_mesh(text, read_topology('v5e:8x8'), MeshSettings())


def test_meshes():
    topology = read_topology('v5e:8x8')
    assert read_mesh('', topology, MeshSettings(fsdp=4)) == MeshSettings(fsdp=4)
    assert read_mesh('fsdp:16,tensor:4', topology, MeshSettings()) == MeshSettings(1, 16, 4)
    assert read_mesh('data:-1,fsdp:16', topology, MeshSettings()).data == -1


def test_more_chips_than_can_be_simulated_are_refused():
    with pytest.raises(UserError, match='100,000 chips are more than the 8,192'):
        aot.fake_devices(100_000)


def test_targets_that_cannot_be(monkeypatch):
    with pytest.raises(UserError, match='not a TPU'):
        aot.find_target(read_topology('h100:8'), 'tpu')
    monkeypatch.setattr(aot, 'has_libtpu', lambda: False)
    with pytest.raises(UserError, match='not installed'):
        aot.find_target(read_topology('v5e:2x2'), 'tpu')
    assert not aot.find_target(read_topology('v5e:2x2')).exact
    with pytest.raises(UserError, match='separate process'):
        aot.find_target(read_topology('h100:64'))
    assert len(jax.devices()) == 8
