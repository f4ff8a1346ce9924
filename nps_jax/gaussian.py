"""A Gaussian of many dimensions from few rows, and how far other rows are from it."""

from typing import NamedTuple

from jaxtyping import Float
import numpy as np


class Gaussian(NamedTuple):
  """A Gaussian whose covariance is of low rank plus a multiple of the identity."""

  centre: Float[np.ndarray, " s"]
  scale: Float[np.ndarray, " s"]  # each column's spread; infinite where it is constant
  basis: Float[np.ndarray, "r s"]  # orthonormal directions of the standardised rows
  precision: Float[np.ndarray, " r"]  # along the basis
  rest: float  # precision across it


def fit(rows: Float[np.ndarray, "m s"]) -> Gaussian:
  """The rows' Gaussian, Ledoit-Wolf shrunk on standardised columns, in float64.

  Ledoit and Wolf 2004, section 3.3: shrinkage towards the mean variance by the
  estimated ratio of the sample covariance's error to its dispersion.
  """
  rows = np.asarray(rows, np.float64)
  centre, scale = rows.mean(axis=0), rows.std(axis=0)
  scale = np.where(scale > 1e-9 * scale.max(initial=1e-30), scale, np.inf)
  unit = (rows - centre) / scale
  m, s = unit.shape
  gram = unit @ unit.T / m
  mu = np.trace(gram) / s
  dispersion = np.square(gram).sum() - s * mu**2
  error = (m * np.square(np.diag(gram)).sum() - np.square(gram).sum()) / m
  shrink = min(1.0, max(0.0, error / dispersion)) if dispersion > 0 else 1.0
  _, singular, basis = np.linalg.svd(unit, full_matrices=False)
  floor = max(shrink * mu, 1e-6)
  along = (1 - shrink) * np.square(singular) / m + floor
  return Gaussian(centre, scale, basis, 1 / along, float(1 / floor))


def distance(
  normal: Gaussian, rows: Float[np.ndarray, "n s"]
) -> Float[np.ndarray, " n"]:
  """Each row's distance from the centre, in standard deviations."""
  unit = (np.asarray(rows, np.float64) - normal.centre) / normal.scale
  inner = np.einsum("ns,rs->nr", unit, normal.basis)
  across = np.maximum(np.square(unit).sum(axis=1) - np.square(inner).sum(axis=1), 0)
  along = np.einsum("nr,r->n", np.square(inner), normal.precision)
  return np.sqrt(along + normal.rest * across)


def held_out(
  known: Float[np.ndarray, "m s"], rows: Float[np.ndarray, "n s"], folds: int
) -> Float[np.ndarray, " n"]:
  """Each row's distance from the Gaussian of all others, but for its own fold's.

  Row i is in fold i modulo the number of folds, which is at most that of the rows.
  """
  fold = np.arange(len(rows)) % folds
  distances = np.empty(len(rows))
  for own in np.unique(fold):
    normal = fit(np.concatenate([known, rows[fold != own]]))
    distances[fold == own] = distance(normal, rows[fold == own])
  return distances
