"""Image-level ranking measures, exact and in float64; equal scores are ties."""

from jaxtyping import Float
import numpy as np


def auroc(good: Float[np.ndarray, " n"], bad: Float[np.ndarray, " m"]) -> float:
  """The chance that a bad score exceeds a good one, ties counting half; 0..1.

  Raises:
    ValueError: either side is empty or holds NaN or infinity.
  """
  _check(good, "good")
  _check(bad, "bad")
  ranked = np.sort(good)
  below = np.searchsorted(ranked, bad, side="left")
  not_above = np.searchsorted(ranked, bad, side="right")
  return int(below.sum() + not_above.sum()) / (2 * good.size * bad.size)


def average_precision(
  good: Float[np.ndarray, " n"], bad: Float[np.ndarray, " m"]
) -> float:
  """The mean, over bad scores, of the precision among scores at least as high; 0..1.

  Raises:
    ValueError: either side is empty or holds NaN or infinity.
  """
  _check(good, "good")
  _check(bad, "bad")
  false = good.size - np.searchsorted(np.sort(good), bad, side="left")
  true = bad.size - np.searchsorted(np.sort(bad), bad, side="left")
  return float(np.mean(true / (true + false)))


def _check(scores: np.ndarray, side: str) -> None:
  if not scores.size:
    raise ValueError(f"There are no {side} scores; both good and bad are needed.")
  if not np.isfinite(scores).all():
    raise ValueError(f"The {side} scores hold NaN or infinity; all must be finite.")
