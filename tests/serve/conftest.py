"""Tests of the server: clients of the Hugging Face hub may reach servers on this machine."""

import pytest


@pytest.fixture(autouse=True, scope='module')
def hub_clients():
    """launch/test.sh sets HF_HUB_OFFLINE, which forbids clients to reach any address."""
    from huggingface_hub import constants

    offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, False
    yield
    constants.HF_HUB_OFFLINE = offline
