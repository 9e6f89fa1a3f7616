"""The data sets of labelled pictures by name; one more is one more line."""

from collections.abc import Mapping
from typing import Any

from research.data.digits import digits
from research.data.images import Images
from research.errors import UserError, choose, unpack


def image_set(settings: Mapping[str, Any]) -> Images:
    """Returns the data set that `config.data` names, opened with its other settings.

    Raises:
      UserError: for an unknown name or setting.
    """
    if not settings.get('name'):
        raise UserError("config.data.name is missing: name a data set, such as 'digits'")
    readers = {'digits': digits}
    options = {key: value for key, value in settings.items() if key != 'name'}
    return unpack(choose(settings['name'], readers, 'config.data.name'), options, 'data')
