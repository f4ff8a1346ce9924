"""A Gaussian of many dimensions from few rows, and how far other rows are from it."""

from typing import NamedTuple

from jaxtyping import Float
import numpy as np

PULL = 0.3  # weight of the edits' scatter beside the normal rows' own


class Gaussian(NamedTuple):
  """A Gaussian whose covariance is of low rank plus a multiple of the identity.

  Where edits are known, distances are taken along what these move (`aim`).
  """

  centre: Float[np.ndarray, " s"]
  scale: Float[np.ndarray, " s"]  # each column's unit; infinite where it is constant
  basis: Float[np.ndarray, "r s"]  # orthonormal directions of the scaled rows
  precision: Float[np.ndarray, " r"]  # along the basis
  rest: float  # precision across it
  aim: Float[np.ndarray, "e s"]  # d2 is the squared length of aim @ scaled; e 0: none


def fit(
  rows: Float[np.ndarray, "m s"],
  moves: Float[np.ndarray, "e s"] | None = None,
  scale: Float[np.ndarray, " s"] | None = None,
) -> Gaussian:
  """The rows' Gaussian, Ledoit-Wolf shrunk on scaled columns, in float64.

  Ledoit and Wolf 2004, section 3.3: shrinkage towards the mean variance by the
  estimated ratio of the sample covariance's error to its dispersion.

  Args:
    moves: by how much edits of normal images moved their rows. With these the squared
      distance is twice the logarithm of how much better the row fits a Gaussian that is
      wider by their scatter, but for a constant (ours; as PLDA, Ioffe 2006, tells what
      varies within a class from what varies between classes). Of the many ways in which
      a row can be unusual it asks for those in which a fault would be.
    scale: each column's unit; None: its spread.
  """
  rows = np.asarray(rows, np.float64)
  centre, spread = rows.mean(axis=0), rows.std(axis=0)
  varies = spread > 1e-9 * spread.max(initial=1e-30)
  varies &= spread > 1e-12 * np.abs(centre)  # more than the mean's own rounding
  scale = np.where(varies, spread if scale is None else scale, np.inf)
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
  blunt = Gaussian(
    centre, scale, basis, 1 / along, float(1 / floor), aim=np.zeros((0, s))
  )
  return blunt if moves is None or not len(moves) else _aimed(blunt, moves)


def _aimed(normal: Gaussian, moves: Float[np.ndarray, "e s"]) -> Gaussian:
  """The Gaussian with the factor of S^-1 - (S + M)^-1, M the moves' scatter.

  By Woodbury that is S^-1 A (1 + A' S^-1 A)^-1 A' S^-1 for M = A A'.
  """
  scatter = np.asarray(moves, np.float64) / normal.scale * np.sqrt(PULL / len(moves))
  inverse = _precisely(normal, scatter)
  inner = np.eye(len(moves)) + scatter @ inverse.T
  aim = np.linalg.solve(np.linalg.cholesky(inner), inverse)
  return normal._replace(aim=aim)


def _precisely(
  normal: Gaussian, unit: Float[np.ndarray, "n s"]
) -> Float[np.ndarray, "n s"]:
  """Scaled rows times the inverse of the covariance."""
  inner = unit @ normal.basis.T
  return normal.rest * unit + (inner * (normal.precision - normal.rest)) @ normal.basis


def distance(
  normal: Gaussian, rows: Float[np.ndarray, "n s"]
) -> Float[np.ndarray, " n"]:
  """Each row's distance from the centre, in standard deviations."""
  unit = (np.asarray(rows, np.float64) - normal.centre) / normal.scale
  if len(normal.aim):
    return np.linalg.norm(unit @ normal.aim.T, axis=1)
  inner = np.einsum("ns,rs->nr", unit, normal.basis)
  across = np.maximum(np.square(unit).sum(axis=1) - np.square(inner).sum(axis=1), 0)
  along = np.einsum("nr,r->n", np.square(inner), normal.precision)
  return np.sqrt(along + normal.rest * across)


def pull(normal: Gaussian, rows: Float[np.ndarray, "n s"]) -> Float[np.ndarray, "n s"]:
  """What each row's columns add to its squared distance, for a unit of difference.

  The squared distance is the sum over columns of pull times (row - centre).
  """
  unit = (np.asarray(rows, np.float64) - normal.centre) / normal.scale
  if len(normal.aim):
    return unit @ normal.aim.T @ normal.aim / normal.scale
  return _precisely(normal, unit) / normal.scale


def held_out(
  rows: Float[np.ndarray, "m s"],
  folds: int,
  moves: Float[np.ndarray, "e s"] | None = None,
  scale: Float[np.ndarray, " s"] | None = None,
) -> Float[np.ndarray, " m"]:
  """Each row's distance from the Gaussian of all rows but its own fold's.

  Row i is in fold i modulo the number of folds, which is at most that of the rows.
  """
  fold = np.arange(len(rows)) % folds
  distances = np.empty(len(rows))
  for own in np.unique(fold):
    normal = fit(rows[fold != own], moves, scale)
    distances[fold == own] = distance(normal, rows[fold == own])
  return distances
