"""From normal scores to the threshold of a wanted false-alarm rate (ours)."""

from typing import NamedTuple

from jaxtyping import Float
import numpy as np
from scipy import special

RATE = 0.01  # of normal images that may be called anomalous; at this the threshold is 1
CERTAIN = (0.05, 0.95)  # of the threshold's own distribution: what bounds its interval
ENOUGH = 2  # normal scores above an empirical threshold, at least
SURPRISING = 0.01  # chance of as many false alarms, below which they are told


class Threshold(NamedTuple):
  """What a normal image's score exceeds as rarely as was wanted."""

  value: float
  low: float  # bounds of 90 % certainty
  high: float
  fitted: bool  # from a tail that was fitted, as there are too few scores


def threshold(normal: Float[np.ndarray, " n"], rate: float) -> Threshold:
  """The threshold at which this share of normal images is to be expected above it.

  Where ENOUGH of n + 1 scores are to be above it, it is one of the scores: the k-th of
  them, k = (n + 1) (1 - rate) rounded up, has a false-alarm rate of at most `rate` in
  the mean over draws of normal images (split conformal). Else the upper half is taken
  as exponential, of a scale that is itself uncertain: the excesses over its base, W in
  sum, have a Gamma distribution, so base + W (((m + 1) / (n + 1) / rate)^(1 / m) - 1)
  has that rate in the mean. The fewer the images, the higher it is.

  Args:
    normal: scores of normal images that nothing was fitted to; any order.
    rate: in (0, 1).

  Raises:
    ValueError: no scores, or a rate out of range.
  """
  ranked = np.sort(np.asarray(normal, np.float64))
  n = len(ranked)
  if not n or not 0 < rate < 1:
    raise ValueError(
      f"{n} normal scores and a false-alarm rate of {rate}; expected 1 "
      "score or more, and a rate above 0 and below 1."
    )
  m = n // 2
  odds = (m + 1) / (n + 1) / rate  # of being above the lower half
  if (n + 1) * rate >= ENOUGH or odds <= 1 or m == 0:
    below = special.bdtr(np.arange(n + 1), n, 1 - rate)  # chance of at most so many
    ranks = np.ceil([(n + 1) * (1 - rate), *np.searchsorted(below, CERTAIN)])
    values = ranked[np.clip(ranks.astype(int) - 1, 0, n - 1)]
    return Threshold(*values.tolist(), fitted=False)
  base = ranked[n - m - 1]
  reach = [
    odds ** (1 / m) - 1,
    *(np.log(odds) / special.gammaincinv(m, certain) for certain in CERTAIN[::-1]),
  ]
  values = base + (ranked[n - m :] - base).sum() * np.array(reach)
  return Threshold(*values.tolist(), fitted=True)


def percentile(normal: Float[np.ndarray, " n"], score: float) -> float:
  """How many of 100 normal scores are at most this one."""
  return 100 * float(np.mean(np.asarray(normal) <= score))


def is_surprising(alarms: int, images: int, rate: float = RATE) -> bool:
  """Whether so many false alarms among normal images are hardly chance."""
  return bool(special.bdtrc(alarms - 1, images, rate) < SURPRISING)
