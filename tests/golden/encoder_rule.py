"""Weights and images that make_encoder.py, make_vit.py and tests draw from names."""

import zlib

import numpy as np


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """The float32 tensor of that name in a file of weights; no statistic is 0 or 1."""
  generator = np.random.default_rng(zlib.crc32(name.encode()))
  if name.startswith("embeddings.") and "projection" not in name:  # tokens and places
    return generator.standard_normal(shape, np.float32)
  if name.endswith("running_var") or (len(shape) == 1 and name.endswith(".weight")):
    return generator.uniform(0.4, 1.2, shape).astype(np.float32)
  scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
  return generator.standard_normal(shape, np.float32) * np.float32(scale)


def images(height: int = 64, width: int = 64) -> np.ndarray:
  """Two images of noise, uint8, channels last."""
  return np.random.default_rng(7).integers(0, 256, (2, height, width, 3), np.uint8)


def places(level: int, size: int) -> np.ndarray:
  """Which 64 values of a level, flattened channels-last, are kept."""
  return np.random.default_rng(level).integers(0, size, 64)
