"""Tessera: train, measure, fine-tune, plan and predict with models of many kinds, from one functional codebase.

    import research
    summary = research.run('configs/digits.py', 'runs/digits')
    model = research.load('runs/digits')
    model.predict([{'image': 'a_digit.png'}])
"""


def __getattr__(name: str):
    """Imports the API on first use, so that `import research.errors` stays cheap."""
    if name in ('run', 'load', 'read'):
        from research import api

        return getattr(api, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
