"""Chat templates of Hugging Face folders, stored with a run so that its server can render conversations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from research.errors import UserError
from research.interop.files import read_json

MAX_TEMPLATE = 200_000  # characters; the longest published templates have a tenth
NAMES = ('bos_token', 'eos_token', 'unk_token', 'pad_token')  # variables of templates


def read_chat(folder: Path, tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The chat template of a folder; None if it has none.

    'template' is the Jinja source, from chat_template.jinja or tokenizer_config.json; 'names' has the texts of
    `NAMES`; 'special' maps the text of each special token to its id.

    Raises:
      UserError: for a template that is not text or is too long.
    """
    file = folder / 'tokenizer_config.json'
    settings = read_json(file) if file.exists() else {}
    own = folder / 'chat_template.jinja'
    try:
        template = own.read_text(encoding='utf-8') if own.exists() else chosen(settings.get('chat_template'))
    except UnicodeDecodeError:
        raise UserError(f'{own} is damaged: it is not UTF-8 text') from None
    if not template:
        return None
    if not isinstance(template, str) or len(template) > MAX_TEMPLATE:
        raise UserError(f'{folder}: the chat template is not a text of at most {MAX_TEMPLATE:,} characters')
    names = {name: text for name in NAMES if isinstance(text := content(settings.get(name)), str)}
    added = tokenizer.get_added_tokens_decoder()
    special = {token.content: index for index, token in added.items() if token.special}
    return {'template': template, 'names': names, 'special': special}


def chosen(template: Any) -> Any:
    """The template named 'default' of a list of several."""
    if not isinstance(template, list):
        return template
    named = [item for item in template if isinstance(item, Mapping)]
    return next((item.get('template') for item in named if item.get('name') == 'default'), None)


def content(token: Any) -> Any:
    """The text of a token, which may be stored as an object."""
    return token.get('content') if isinstance(token, Mapping) else token
