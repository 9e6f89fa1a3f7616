"""Optional packages for one kind of data or method: imported on use, installed as extras."""

import importlib
from typing import Any

from research.errors import UserError

EXTRAS = {
    'soundfile': ('audio', 'to read and write sound files'),
    'rjieba': ('chinese', 'to split Chinese text into words'),
    'snowballstemmer': ('stemming', 'to stem words'),
    'sacrebleu': ('translation', 'to score translations'),
    'pyarrow': ('tables', 'to read Parquet files'),
    'dp_accounting': ('privacy', 'to account for privacy'),
    'ai_edge_litert': ('export', 'to run LiteRT files'),
    'apache_beam': ('beam', 'to run predictions on Apache Beam'),
    'gguf': ('export', 'to write GGUF files'),
    'onnx': ('export', 'to write ONNX files'),
    'onnxruntime': ('export', 'to run ONNX files'),
    'fastapi': ('serve', 'to serve models'),
    'orjson': ('serve', 'to serve models'),
    'prometheus_client': ('serve', 'to serve models'),
    'uvicorn': ('serve', 'to serve models'),
}
# Pip cannot resolve their declared requirements beside ours.
FOREIGN = ('litert_converter', 'ai_edge_quantizer', 'jax2onnx')


def require(module: str) -> Any:
    """Imports a module of an extra, such as 'sacrebleu.metrics'.

    Raises:
      UserError: names the extra or the file of requirements to install.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.partition('.')[0]
        if name in FOREIGN:
            raise UserError(
                f'the package {name} is needed for this format ({error}). Its declared requirements conflict with '
                'others, so install it without them: pip install --no-deps -r launch/foreign.txt'
            ) from None
        extra, purpose = EXTRAS[name]
        raise UserError(
            f"the package {name} is needed {purpose} ({error}): pip install 'tessera[{extra}]', or in a checkout "
            f"pip install -e '.[{extra}]'"
        ) from None
