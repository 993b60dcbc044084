"""Correlated noise for training loops in JAX: streams of C^{-1} z, in steps or blocks, on any number of devices."""

from dpkit.noise.randomness import Generator, secret_key
from dpkit.noise.stream import Memory, NoiseState, Stream, stream
from dpkit.noise.transformation import add_correlated_noise

__all__ = ["Generator", "Memory", "NoiseState", "Stream", "add_correlated_noise", "secret_key", "stream"]
