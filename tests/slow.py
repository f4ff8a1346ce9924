"""Slow references that several tests compare with."""

import numpy as np


def ledoit_wolf(rows: np.ndarray) -> tuple[np.ndarray, float]:
  """Covariance of centred rows and its shrinkage, Ledoit and Wolf 2004, section 3.3."""
  m, s = rows.shape
  sample = sum(np.outer(row, row) for row in rows) / m
  mean = np.trace(sample) / s
  dispersion = np.sum((sample - mean * np.eye(s)) ** 2) / s
  error = sum(np.sum((np.outer(row, row) - sample) ** 2) / s for row in rows) / m**2
  share = min(error, dispersion) / dispersion
  return share * mean * np.eye(s) + (1 - share) * sample, share


def mahalanobis(normal: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, float]:
  """Distances by the inverse of the dense covariance, and the shrinkage."""
  normal, rows = np.float64(normal), np.float64(rows)
  centre, spread = normal.mean(axis=0), normal.std(axis=0)
  spread[np.ptp(normal, axis=0) == 0] = np.inf
  covariance, share = ledoit_wolf((normal - centre) / spread)
  inverse = np.linalg.inv(covariance)
  far = [each @ inverse @ each for each in (rows - centre) / spread]
  return np.sqrt(far), share


def patches(held: dict[int, np.ndarray]) -> np.ndarray:
  """3 x 3 means with repeated edges; the coarser level is doubled, bilinear."""
  parts = []
  grid = next(iter(held.values())).shape[1:3]
  for feats in held.values():
    padded = np.pad(np.float64(feats), ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    _, h, w, _ = feats.shape
    windows = [padded[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]
    mean = np.mean(windows, axis=0)
    for axis, size in zip((1, 2), grid, strict=True):
      if mean.shape[axis] != size:
        mean = np.moveaxis(_doubled(np.moveaxis(mean, axis, 0)), 0, axis)
    parts.append(mean)
  return np.concatenate(parts, axis=-1)


def _doubled(rows: np.ndarray) -> np.ndarray:
  """Bilinear to twice as many rows: three quarters of one, a quarter of the next."""
  before, after = [np.roll(rows, shift, axis=0) for shift in (1, -1)]
  before[0], after[-1] = rows[0], rows[-1]
  pairs = [0.75 * rows + 0.25 * before, 0.75 * rows + 0.25 * after]
  return np.stack(pairs, axis=1).reshape(2 * len(rows), *rows.shape[1:])
