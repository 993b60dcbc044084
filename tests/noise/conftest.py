"""Settings of JAX that some tests need."""

import jax
import pytest


@pytest.fixture
def x64():
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)
