"""Image AUROC, exact and in float64, and its bootstrap; equal scores are ties."""

from jaxtyping import Float, Int
import numpy as np

BLOCK = 2**22  # cells of the bootstrap's histograms that are in memory at a time


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


def resampled(
  good: Float[np.ndarray, " n"],
  bad: Float[np.ndarray, " m"],
  good_draws: Int[np.ndarray, "r n"],
  bad_draws: Int[np.ndarray, "r m"],
) -> Float[np.ndarray, " r"]:
  """The AUROC of each bootstrap sample; ties count half.

  Args:
    good_draws: for each sample, the indices of the good scores that are in it.
    bad_draws: likewise of the bad scores.

  Raises:
    ValueError: either side is empty or holds NaN or infinity.
  """
  _check(good, "good")
  _check(bad, "bad")
  values, place = np.unique(np.concatenate([good, bad]), return_inverse=True)
  size, aurocs = values.size, []
  block = max(1, BLOCK // size)
  for start in range(0, len(good_draws), block):
    good_counts, bad_counts = [
      _histograms(places[draws[start : start + block]], size)
      for places, draws in (
        (place[: good.size], good_draws),
        (place[good.size :], bad_draws),
      )
    ]
    below = np.cumsum(good_counts, axis=1) - good_counts
    won = np.einsum("rv,rv->r", bad_counts, 2 * below + good_counts)
    aurocs.append(won / (2 * good.size * bad.size))
  return np.concatenate(aurocs)


def _histograms(places: Int[np.ndarray, "r n"], size: int) -> Int[np.ndarray, "r v"]:
  """How often each of `size` places stands in each row."""
  rows = len(places)
  offset = places + size * np.arange(rows)[:, None]
  return np.bincount(offset.ravel(), minlength=rows * size).reshape(rows, size)


def _check(scores: np.ndarray, side: str) -> None:
  if not scores.size:
    raise ValueError(f"There are no {side} scores; both good and bad are needed.")
  if not np.isfinite(scores).all():
    raise ValueError(f"The {side} scores hold NaN or infinity; all must be finite.")
