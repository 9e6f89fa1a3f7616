"""A run exported as a Hugging Face folder or as GGUF by the program, and the folder used again."""

import importlib
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

import launch.export
import research
from research.export.check import check_hashes
from research.interop import weights

SETTINGS = {'train.steps': '0', 'task.max_new_tokens': '6', 'task.temperature': '0.5', 'task.top_k': '5'}
FILES = {
    'config.json', 'generation_config.json', 'model.safetensors', 'tokenizer.json', 'tokenizer_config.json',
    'README.md', 'LICENSE', 'MANIFEST.sha256', 'program.json', 'inputs.json', 'vectors.safetensors',
}  # fmt: skip


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    return research.run('configs/python_lm.py:tiny', tmp_path_factory.mktemp('lm'), SETTINGS)


def export(*flags):
    """The exit status of the program, run in this process."""
    importlib.reload(launch.export)  # defines its flags anew: other programs share some names
    for name in ('workdir', 'format', 'output', 'int8', 'check'):
        launch.export.flags.FLAGS[name].unparse()  # flags keep their values between runs in one process
    with pytest.raises(SystemExit) as ended:
        launch.flags.run(launch.export.main, ['export', *map(str, flags)])
    return ended.value.code or 0


def test_the_folder_has_all_that_transformers_reads(run, tmp_path, capsys):
    folder = tmp_path / 'folder'
    assert export(f'--workdir={run.workdir}', '--format=huggingface', f'--output={folder}') == 0
    assert {file.name for file in folder.iterdir()} == FILES and check_hashes(folder) == len(FILES) - 1
    config, generation = (json.loads((folder / f'{name}.json').read_text()) for name in ('config', 'generation_config'))
    assert config['architectures'] == ['LlamaForCausalLM'] and config['torch_dtype'] == 'float32'
    assert generation == {
        'eos_token_id': 0, 'max_new_tokens': 6, 'do_sample': True, 'temperature': 0.5, 'top_k': 5,
        'top_p': 0.9,
    } | ({'bos_token_id': 0} if 'bos_token_id' in generation else {})  # fmt: skip
    model = run.model()
    back, stored = weights.read(str(folder)), load_file(folder / 'model.safetensors')
    np.testing.assert_array_equal(back.params['tokens']['embedding'], stored['model.embed_tokens.weight'])
    np.testing.assert_array_equal(
        back.params['tokens']['embedding'], model.variables.params['model']['tokens']['embedding']
    )
    ours = Tokenizer.from_file(str(run.workdir / 'prepared' / 'tokenizer.json'))
    theirs = Tokenizer.from_file(str(folder / 'tokenizer.json'))
    texts = ['def f(x):', '今天 🙂', '  \n\n\tx']
    assert [theirs.encode(text).ids for text in texts] == [ours.encode(text).ids for text in texts]
    readme = (folder / 'README.md').read_text()
    assert re.match(r'---\nlibrary_name: transformers\npipeline_tag: text-generation\n', readme)
    assert '    - {type: "loss", value:' in readme and readme.count('\n---\n') == 1
    capsys.readouterr()
    assert export(f'--check={folder}') == 1 and 'has no run.py' in capsys.readouterr().err


def test_gguf_from_a_run(run, tmp_path, capsys):
    pytest.importorskip('gguf', reason='the extra export is not installed')
    assert export(f'--workdir={run.workdir}', '--format=gguf', f'--output={tmp_path / "gguf"}') == 0
    assert (tmp_path / 'gguf' / 'model.gguf').read_bytes()[:4] == b'GGUF'
    assert check_hashes(tmp_path / 'gguf') and 'MB in' in capsys.readouterr().out
    assert export(f'--workdir={run.workdir}', '--format=gguf', f'--output={tmp_path / "g"}', '--int8') == 1


def test_a_task_without_a_counterpart_is_refused(tmp_path, capsys):
    run = research.run('configs/digits.py:tiny', tmp_path / 'run', {'train.steps': '0'})
    assert export(f'--workdir={run.workdir}', '--format=huggingface', f'--output={tmp_path / "out"}') == 1
    assert not (tmp_path / 'out').exists() and 'error' in capsys.readouterr().err
