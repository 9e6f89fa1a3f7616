"""What is said before step 1: layers, operations, memory, one example; and what when memory runs out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from research import memory
from research.capacity.flops import count_flops
from research.core import environment
from research.core.task import Input, Task, Variables
from research.data import readable
from research.report import describe as describe_module
from research.report.layers import array_lines, call_order, describe_layers, layer_table
from research.units import bytes_text, count_text, time_text


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def init(key):
    """A model whose layers are not in alphabetical order."""
    zeros = jnp.zeros
    return Variables(
        {
            'model': {
                'stem': {'kernel': zeros((3, 3, 1, 8)), 'bias': zeros(8)},
                'blocks': {'mlp': {'up': {'kernel': zeros((6, 256, 1024))}}},
                'layer_10': {'kernel': zeros((4, 4))},
                'layer_2': {'kernel': zeros((4, 4))},
                'a_head': {'kernel': zeros((8, 10))},
                'scale': zeros(4),
            },
            'teacher': {'head': {'kernel': zeros((8, 10))}},
        },
        {'model': {'batch_stats': {'stem': {'mean': zeros(8)}}}},
    )


def test_layers_are_grouped_by_module_and_counted():
    shapes = jax.eval_shape(init, jax.random.key(0))
    frozen = {'model': jax.tree.map(lambda leaf: leaf.shape == (4,), shapes.params['model'])}
    layers = json.loads(json.dumps(describe_layers(shapes, ['model'], frozen)))
    rows = {(row['group'], row['path']): row for row in layers['rows']}
    stem = rows['model', 'stem']
    assert [array['name'] for array in stem['arrays']] == ['kernel', 'bias', 'mean']
    assert stem['parameters'] == 9 * 8 + 8 and stem['bytes'] == 4 * (72 + 8 + 8)
    everything = sum(leaf.size for leaf in jax.tree.leaves(shapes.params))
    totals = layers['totals']
    assert totals['frozen'] == 4 + 80  # the scale, and the group without a loss
    assert totals['trained'] == everything - 84 and totals['state'] == 8
    assert totals['bytes'] == 4 * (everything + 8) == totals['bytes_per_device']
    paths = [row['path'] for row in layers['rows'] if row['group'] == 'model']
    assert paths.index('layer_2') < paths.index('layer_10')


def test_layers_in_the_order_in_which_init_makes_them():
    shapes = jax.eval_shape(init, jax.random.key(0))
    rows = describe_layers(shapes, ['model'], order=call_order(init, jax.random.key(0)))['rows']
    paths = [row['path'] for row in rows if row['group'] == 'model']
    assert paths == ['stem', 'blocks/mlp/up', 'layer_10', 'layer_2', 'a_head', '']


def test_layer_table_shows_stacked_blocks_sharding_and_what_is_frozen():
    mesh = jax.make_mesh((1, 4), ('data', 'fsdp'), axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:4])

    def place(leaf):
        spec = PartitionSpec(None, None, 'fsdp') if leaf.size > 16384 else PartitionSpec()
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(mesh, spec))

    shapes = jax.tree.map(place, jax.eval_shape(init, jax.random.key(0)))
    layers = describe_layers(shapes, ['model'])
    assert layers['totals']['bytes'] - layers['totals']['bytes_per_device'] == 6 * 256 * 1024 * 4 * 3 // 4
    text = layer_table(layers)
    assert 'kernel 6 × [256×1024]' in text and '(·, ·, fsdp)' in text and 'replicated' in text
    assert 'mean 8 (batch_stats)' in text
    line = next(line for line in text.split('\n') if 'teacher/head' in line)
    assert '80' in line and 'frozen' in line
    assert all(len(line) <= 108 for line in text.split('\n'))
    assert 'on each device' in text


def test_layer_table_of_many_layers_leaves_out_the_middle():
    params = {'model': {f'layer_{index}': {'kernel': shape(2, 2)} for index in range(50)}}
    text = layer_table(describe_layers(Variables(params, {}), ['model']), limit=10)
    assert '... 40 more layers' in text and 'layer_49' in text and 'layer_25' not in text
    assert 'Trained parameters: 200' in text


def test_flops_of_a_matrix_product():
    counted = count_flops(lambda a, b: a @ b, shape(3, 5), shape(5, 7))
    assert counted['total'] == counted['matrix'] == 2 * 3 * 5 * 7
    batched = count_flops(lambda a, b: jnp.einsum('bij,bjk->bik', a, b), shape(4, 3, 5), shape(4, 5, 7))
    assert batched['matrix'] == 4 * 2 * 3 * 5 * 7


def convolution(stride, padding, groups=1, dilation=1):
    def apply(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, rhs_dilation=(dilation, dilation),
            dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=groups,
        )  # fmt: skip

    return apply


def test_flops_of_a_convolution_without_padding():
    counted = count_flops(convolution(1, 'VALID'), shape(2, 11, 13, 8), shape(3, 3, 8, 16))
    assert counted['matrix'] == 2 * 2 * 9 * 11 * 16 * 3 * 3 * 8


@pytest.mark.parametrize(
    ('stride', 'padding', 'groups', 'dilation'),
    [(1, 'SAME', 1, 1), (2, 'SAME', 1, 1), (1, 'SAME', 4, 1), (3, 'VALID', 1, 1), (1, 'SAME', 1, 2)],
)
def test_flops_of_a_convolution_agree_with_the_compiler(stride, padding, groups, dilation):
    function = convolution(stride, padding, groups, dilation)
    arguments = shape(2, 11, 13, 8), shape(3, 3, 8 // groups, 16)
    forward = count_flops(function, *arguments)['matrix']
    assert forward == jax.jit(function).lower(*arguments).cost_analysis()['flops']
    gradient = jax.grad(lambda *both: function(*both).sum(), (0, 1))
    assert count_flops(gradient, *arguments)['matrix'] == 3 * forward


@given(
    sizes=st.tuples(*[st.integers(1, 7)] * 3), stride=st.integers(1, 3), padding=st.integers(0, 3),
    holes=st.integers(1, 3), dilation=st.integers(1, 3),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_flops_of_a_convolution_count_the_positions_that_meet_input(sizes, stride, padding, holes, dilation):
    length, kernel, channels = sizes
    reach, width = (kernel - 1) * dilation + 1, (length - 1) * holes + 1 + 2 * padding
    if reach > width:
        return

    def function(x, weights):
        return jax.lax.conv_general_dilated(
            x, weights, (stride,), [(padding, padding)], (holes,), (dilation,)
        )

    real = np.zeros(width, int)
    real[padding : width - padding : holes] = 1
    met = sum(real[start : start + reach : dilation].sum() for start in range(0, width - reach + 1, stride))
    counted = count_flops(function, shape(1, channels, length), shape(2, channels, kernel))
    assert counted['matrix'] == 2 * 2 * channels * met


def stacked(remat):
    def function(x, kernels):
        def layer(carry, kernel):
            return jnp.tanh(carry @ kernel), None

        return jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, kernels)[0].sum()

    return function


def test_flops_of_a_scan_of_layers_and_its_gradient():
    arguments, forward = (shape(8, 16), shape(5, 16, 16)), 5 * 2 * 8 * 16 * 16
    counted = count_flops(stacked(remat=False), *arguments)
    assert counted['matrix'] == forward
    assert counted['total'] == forward + 5 * 8 * 16 + 8 * 16  # tanh, and the sum at the end
    assert count_flops(jax.grad(stacked(remat=False), (0, 1)), *arguments)['matrix'] == 3 * forward
    assert count_flops(jax.grad(stacked(remat=True), (0, 1)), *arguments)['matrix'] == 4 * forward
    assert not counted['notes']


def test_flops_open_jit_and_custom_derivatives_once():
    @jax.custom_vjp
    def double(x):
        return x @ x

    double.defvjp(lambda x: (x @ x, x), lambda x, g: (g @ x.T + x.T @ g,))
    assert count_flops(jax.jit(lambda x: double(x).sum()), shape(4, 4))['matrix'] == 2 * 4**3
    assert count_flops(jax.grad(lambda x: double(x).sum()), shape(4, 4))['matrix'] == 3 * 2 * 4**3


def test_flops_of_branches_and_open_loops():
    def function(x):
        x = jax.lax.cond(x.sum() > 0, lambda x: x @ x, lambda x: x, x)
        return jax.lax.while_loop(lambda x: x.sum() > 0, lambda x: x @ x, x)

    counted = count_flops(function, shape(4, 4))
    assert counted['matrix'] == 2 * 2 * 4**3
    assert any('conditional' in note for note in counted['notes'])
    assert any('while loop' in note for note in counted['notes'])


def test_flops_under_shard_map_are_those_of_all_devices():
    mesh = jax.make_mesh((4,), ('data',), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    spec = PartitionSpec('data')
    function = jax.shard_map(lambda x, w: x @ w, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec)
    assert count_flops(function, shape(8, 4), shape(4, 4))['matrix'] == 2 * 8 * 4 * 4


def test_memory_of_a_compiled_function_counts_a_donated_argument_once():
    compiled = jax.jit(lambda x: x + 1, donate_argnums=0).lower(shape(1000)).compile()
    numbers = memory.compiled_memory(compiled)
    assert numbers['arguments'] == numbers['outputs'] == numbers['aliased'] == 4000
    assert numbers['total'] == 4000 + numbers['temporaries'] and numbers['estimate']
    assert 'an estimate on CPU' in memory.memory_text(numbers)
    small = {**numbers, 'limit': 3000, 'estimate': False}
    assert 'will not fit' in memory.memory_text(small)


class NoAnalysis:
    def memory_analysis(self):
        return None


def test_memory_is_empty_where_the_backend_does_not_say():
    assert memory.compiled_memory(NoAnalysis()) == {}


def settings_of(**model):
    return {'train': {'batch_size': 12, 'microbatches': 2}, 'model': model, 'mesh': {'fsdp': 1}}


def test_out_of_memory_names_the_numbers_and_the_settings():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        jnp.zeros((1 << 20, 1 << 20)) + 1
    assert memory.is_out_of_memory(caught.value)
    numbers = {'arguments': 1024, 'outputs': 0, 'temporaries': 3072, 'aliased': 0, 'total': 4096, 'limit': 0}
    text = memory.out_of_memory_message(
        caught.value, {**numbers, 'estimate': True}, settings_of(remat=False)
    )
    assert 'requested 4.00 TiB' in text and '4.00 KiB on each device' in text
    for flag in ('train.microbatches=3', 'model.remat=True', 'train.batch_size=6', 'mesh.fsdp=8'):
        assert f'--config.{flag}' in text


def test_out_of_memory_of_an_accelerator_that_says_what_is_there():
    error = jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Ran out of memory. Used 16.92G of 15.75G hbm.')
    assert memory.is_out_of_memory(error)
    text = memory.out_of_memory_message(error, {}, settings_of())
    assert '16.92G' in text and '15.75G' in text and 'remat' not in text


def test_other_errors_are_not_out_of_memory():
    assert not memory.is_out_of_memory(jax.errors.JaxRuntimeError('INVALID_ARGUMENT: no'))
    assert not memory.is_out_of_memory(MemoryError('the host'))


def test_an_example_is_readable():
    picture = np.zeros((8, 8), np.uint8)
    picture[2:6, 4] = 255
    raw = {'image': picture, 'label': np.int64(3), 'text': b'abc', 'long': 'x' * 5000, 'none': None}
    example = describe_module.describe_example(
        raw, {'tokens': np.arange(100), 'x': np.ones((4, 4), np.float32)}
    )
    example = json.loads(json.dumps(example))
    assert example['raw']['label'] == 3 and example['raw']['text'] == 'abc'
    assert example['raw']['image'].split('\n')[3] == ' ' * 8 + '@@'
    assert '5,000 characters' in example['raw']['long'] and len(example['raw']['long']) < 500
    assert example['encoded']['tokens'].startswith('int64 [100]: 0 1 2 3')
    assert example['encoded']['x'] == 'float32 [4, 4]: 1 to 1, mean 1'


def test_an_example_is_shown_as_its_task_decodes_it():
    arrays = {'tokens': np.arange(9), 'length': np.int32(9)}
    example = json.loads(json.dumps(describe_module.describe_example(arrays, arrays, {'text': 'To be,\nor not'})))
    text = describe_module.summary_text({**described(), 'example': example})
    assert '  text:\n    To be,\n    or not\n  encoded as\n    tokens: int64 [9]: 0 1 2' in text
    assert text.count('tokens:') == 1  # the ids are no second example


def test_a_large_picture_is_made_small():
    text = readable.picture_text(np.random.default_rng(0).random((100, 200, 3)))
    assert len(text.split('\n')) <= 32 and max(map(len, text.split('\n'))) <= 64


def described(**changes):
    config = {'task': {'name': 'toy'}, 'train': {'batch_size': 64}}
    layers = describe_layers(jax.eval_shape(init, jax.random.key(0)), ['model'])
    devices = environment.describe_devices(jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,)))
    example = describe_module.describe_example({'text': 'a\nb \x1b[31m', 'label': 3}, {'label': np.int32(3)})
    data = {'train': 1437, 'test': 180}
    return describe_module.describe(config, devices, layers, example, data, 1200, **changes)


def test_summary_says_everything_before_step_one():
    flops = {'total': 3_400_000_000, 'matrix': 3_000_000_000, 'notes': ['a note']}
    numbers = memory.compiled_memory(jax.jit(lambda x: x + 1).lower(shape(1000)).compile())
    description = json.loads(
        json.dumps(described(flops=flops, memory=numbers, seconds_per_step=0.01, start=200))
    )
    text = describe_module.summary_text(description)
    for part in (
        '8 cpu devices', 'data 8', 'train 1,437, test 180', '3.40 GFLOP', '88%', 'a note', 'estimate on CPU',
        '1,200 of 64 examples (53.4 epochs), 1,000 left', 'about 10 s', 'label: 3', 'blocks/mlp/up',
    ):  # fmt: skip
        assert part in text, part
    assert '\x1b' not in text
    assert 'Time ' not in describe_module.summary_text(described())  # not known, not said


def test_flow_names_groups_methods_and_optional_parts():
    def nothing(*_):
        return {}

    fields = {'inputs': {'image': Input('image', (8, 8))}, 'losses': {'model': nothing}, 'render': nothing}
    names = ('source', 'encode', 'init', 'predict', 'metric_sums', 'metrics', 'decode')
    task = Task(**fields, **dict.fromkeys(names, nothing))
    flow = describe_module.describe_flow(task, {'image': shape(64, 8, 8)}, ('lora',), {'model': 'adamw'})
    assert json.loads(json.dumps(flow)) == flow
    assert flow['inputs'] == {'image': 'image'} and flow['batch'] == {'image': 'float32 [64, 8, 8]'}
    assert flow['groups'] == {'model': 'adamw'} and flow['methods'] == ['lora'] and flow['has'] == ['render']


def test_units():
    assert [bytes_text(size) for size in (512, 1536, 5 << 30)] == ['512 B', '1.50 KiB', '5.00 GiB']
    assert [count_text(count, 'FLOP') for count in (12, 3.4e9)] == ['12 FLOP', '3.40 GFLOP']
    times = [time_text(seconds) for seconds in (3.21, 42, 125, 7260, 260000)]
    assert times == ['3.2 s', '42 s', '2 min 05 s', '2 h 01 min', '3 d 0 h']


def test_arrays_that_are_alike_share_a_line():
    norm = {'bias': shape(8), 'scale': shape(8)}
    stats = {'batch_stats': {'norm': {'mean': shape(8), 'var': shape(8)}}}
    rows = describe_layers(Variables({'model': {'norm': norm}}, {'model': stats}), ['model'])['rows']
    assert [text for text, _ in array_lines(rows[0])] == ['bias, scale 8', 'mean, var 8 (batch_stats)']
