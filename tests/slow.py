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
