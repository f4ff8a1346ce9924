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


def unit(feats: np.ndarray) -> np.ndarray:
  feats = np.float64(feats)
  return feats / np.linalg.norm(feats, axis=-1, keepdims=True)


def resize(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
  """Bilinear between cell centres; a triangle of the coarser cell's width."""
  parts = []
  for old, new in zip(values.shape, grid, strict=True):
    part = np.zeros((new, old))
    for to in range(new):
      centre, reach = (to + 0.5) * old / new - 0.5, max(1.0, old / new)
      for at in range(old):
        part[to, at] = max(0.0, 1 - abs(at - centre) / reach)
      part[to] /= part[to].sum()
    parts.append(part)
  return parts[0] @ np.float64(values) @ parts[1].T


def smooth(maps: np.ndarray, sigma: float) -> np.ndarray:
  """A Gaussian window cut at four deviations; edges are mirrored with their cell."""
  reach = int(4 * sigma + 0.5)
  steps = np.arange(-reach, reach + 1)
  bell = np.exp(-0.5 * (steps[:, None] ** 2 + steps[None] ** 2) / max(sigma, 1e-9) ** 2)
  smoothed = np.zeros(maps.shape)
  for at, y, x in np.ndindex(*maps.shape):
    padded = np.pad(np.float64(maps[at]), reach, mode="symmetric")
    window = padded[y:, x:][: len(steps), : len(steps)]
    smoothed[at, y, x] = np.sum(window * bell) / bell.sum()
  return smoothed


def quantile(values: np.ndarray, share: float) -> float:
  ranked = sorted(np.float64(values).ravel())
  at = share * (len(ranked) - 1)
  low = min(int(at), len(ranked) - 2)
  return ranked[low] + (at - low) * (ranked[low + 1] - ranked[low])


def position_statistics(maps: np.ndarray, positionwise: bool):
  """Mean and spread, cell by cell: n parts its own, forty the average cell's."""
  n, grid = len(maps), maps.shape[1:]
  if not positionwise:
    return np.full(grid, maps.mean()), np.full(grid, maps.std())
  cells = [maps[:, y, x] for y, x in np.ndindex(*grid)]
  means = [sum(c) / n for c in cells]
  within = [sum((c - sum(c) / n) ** 2) / (n - 1) for c in cells]
  mean = [(n * m + 40 * np.mean(means)) / (n + 40) for m in means]
  spread = [np.sqrt((n * v + 40 * np.mean(within)) / (n + 40)) for v in within]
  return np.reshape(mean, grid), np.reshape(spread, grid)


def smooth_by_axis(image: np.ndarray, sigmas: list[float]) -> np.ndarray:
  """One image under a Gaussian with a spread of its own along each axis."""
  smoothed = np.float64(image)
  for axis, sigma in enumerate(sigmas):
    reach = int(4 * sigma + 0.5)
    bell = np.exp(-0.5 * np.arange(-reach, reach + 1) ** 2 / sigma**2)
    rows = np.moveaxis(smoothed, axis, 0)
    padded = np.pad(rows, ((reach, reach), (0, 0)), mode="symmetric")
    sums = [bell @ padded[at : at + len(bell)] / bell.sum() for at in range(len(rows))]
    smoothed = np.moveaxis(np.stack(sums), 0, axis)
  return smoothed


def candidate_gaps(rows: np.ndarray, patches: np.ndarray) -> np.ndarray:
  """Distance to the nearest of 16 candidates: every 16th patch's best along the basis.

  The basis is the 30 directions in which the patches vary most.
  """
  flat, patches = np.float64(rows).reshape(-1, rows.shape[-1]), np.float64(patches)
  _, _, basis = np.linalg.svd(patches - patches.mean(axis=0), full_matrices=False)
  gaps = []
  for row in flat:
    along = np.linalg.norm((patches - row) @ basis[:30].T, axis=1)
    candidates = [
      start + 16 * int(np.argmin(along[start::16]))
      for start in range(min(16, len(patches)))
    ]
    gaps.append(min(np.linalg.norm(patches[at] - row) for at in candidates))
  return np.reshape(gaps, rows.shape[:-1])
