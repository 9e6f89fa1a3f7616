"""A Hugging Face folder: weights, tokenizer, generation settings and model card, as transformers and vLLM read them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.core.metrics import read_metrics
from research.export.folder import Written, write_json
from research.export.programs import Source, outputs_of, predict_program
from research.export.readme import data_of
from research.interop.publish import Published, find_family, write_parts

PIPELINES = {  # {form: the name of its pipeline}
    'decoder': 'text-generation', 'masked': 'fill-mask', 'classifier': 'text-classification',
    'encoder-decoder': 'text2text-generation', 'image': 'image-classification',
}  # fmt: skip
TOLERANCE = 1e-5
PROMISE = (
    '`config.json`, `model.safetensors` and the tokenizer are in the layout of the Hugging Face hub; transformers, '
    "vLLM and text-generation-inference read them: `transformers.pipeline('{pipeline}', 'FOLDER')`. Nothing in it is "
    'pickled. Here: `--config.model.weights=FOLDER`, with `--config.train.steps=0` without training.'
)


def export(source: Source, folder: Path, int8: bool = False) -> Written:
    """Writes the weights in float32, with adapters folded into them.

    Raises:
      UserError: if no supported family has the architecture of the model.
    """
    del int8  # `launch.export` refuses it
    published: Published = source.publish()
    family = find_family(published)
    write_parts(published, family, folder)
    if published.form in ('decoder', 'encoder-decoder'):
        write_json(folder / 'generation_config.json', generation_config(source.config.task, published))
    program = predict_program(source)
    return Written(
        runner='', packages=('safetensors', 'tokenizers', 'numpy'), programs={}, main='', inputs=program.inputs,
        outputs=outputs_of(program), tolerance=TOLERANCE, card=card_text(source, published, family.model_type),
        promise=PROMISE.format(pipeline=PIPELINES[published.form]),
        more={'family': family.model_type, 'form': published.form},
    )  # fmt: skip


def generation_config(task: Mapping[str, Any], published: Published) -> dict[str, Any]:
    """generation_config.json: the tokens that begin and end a text, and how the task samples or searches."""
    values = {name: value for name, value in published.ids.items() if name.endswith('_token_id')}
    temperature, length = task.get('temperature'), task.get('max_new_tokens') or published.length
    values |= {'max_new_tokens': int(length)} if length else {}
    if task.get('beams', 1) > 1:
        values |= {'num_beams': int(task['beams']), 'do_sample': False}
    elif temperature:
        values |= {'do_sample': True, 'temperature': float(temperature)}
        values |= {'top_k': int(task.get('top_k', 0)), 'top_p': float(task.get('top_p', 1.0))}
    else:
        values['do_sample'] = False
    return values


def card_text(source: Source, published: Published, family: str) -> str:
    """The YAML metadata of a model card; JSON strings are YAML strings."""
    name = str(source.config.task.get('name', ''))
    lines = [
        'library_name: transformers', f'pipeline_tag: {PIPELINES[published.form]}', 'license: other',
        'license_name: see-license', 'license_link: LICENSE', f'tags: [{family}, tessera]',
    ]  # fmt: skip
    rows = read_metrics(source.workdir).get('test', {}).get('metrics', {})
    rows = {metric: row for metric, row in rows.items() if isinstance(row['value'], (int, float))}
    if rows:
        task = f'{{type: {PIPELINES[published.form]}}}'
        dataset = (
            f'{{name: {json.dumps(data_of(source.config))}, type: {json.dumps(data_of(source.config))}, split: test}}'
        )
        lines += ['model-index:', f'- name: {json.dumps(name)}', '  results:']
        lines += [f'  - task: {task}', f'    dataset: {dataset}', '    metrics:']
        lines += [f'    - {{type: {json.dumps(metric)}, value: {row["value"]:.6g}}}' for metric, row in rows.items()]
    return '\n'.join(['---', *lines, '---', '', ''])
