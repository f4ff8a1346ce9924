"""What a server has answered so far, as Prometheus reads it.

The drift figures compare the last RECENT scores with those that held-out normal images
had in calibration. `drift_ks` is the Kolmogorov-Smirnov distance: the largest
difference, over all scores, of the shares that lie at or below it; 0: alike, 1: apart.
Even if nothing has drifted it is above `drift_ks_by_chance` once in a hundred times. It
rises with anomalous images too: read it beside `recent_anomalous_share`. `drift_median`
is the recent scores' median less that of the normal ones, in units of the score, so it
says which way.
"""

import collections
from collections.abc import Iterator
import math

from jaxtyping import Float
import numpy as np

from nps_jax.report import lines

RECENT = 500  # images that drift and share are of
BOUNDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # s, latency
BY_CHANCE = 1.628  # Kolmogorov's distribution at 99 %
PREFIX = "nps_jax_"


class Monitor:
  """Counts; to be used from one thread."""

  def __init__(self, normal: Float[np.ndarray, " v"]):
    """Nothing is counted yet.

    Args:
      normal: the calibration's scores of normal images.
    """
    self._normal = normal
    self._statuses: collections.Counter[int] = collections.Counter()
    self._verdicts = collections.Counter({lines.OK: 0, lines.ANOMALOUS: 0})
    self._recent: collections.deque[tuple[float, bool]] = collections.deque(
      maxlen=RECENT
    )
    self._buckets = [0] * (len(BOUNDS) + 1)
    self._seconds = 0.0

  def add_request(self, status: int) -> None:
    """Counts a request to /score by its answer's status."""
    self._statuses[status] += 1

  def add_image(self, score: float, verdict: str, seconds: float) -> None:
    """Counts an image that has been scored, so many seconds after its body came."""
    self._verdicts[verdict] += 1
    self._recent.append((score, verdict == lines.ANOMALOUS))
    self._buckets[int(np.searchsorted(BOUNDS, seconds))] += 1
    self._seconds += seconds

  def text(self, *, waiting: int, batches: int, computing: float) -> str:
    """All figures in Prometheus' text format.

    Args:
      waiting: images that wait to be scored.
      batches: that have been scored, in `computing` seconds.
    """
    return "\n".join(self._lines(waiting, batches, computing)) + "\n"

  def _lines(self, waiting: int, batches: int, computing: float) -> Iterator[str]:
    yield from _head("requests_total", "counter", "Requests to /score, by status.")
    for status, count in sorted(self._statuses.items()):
      yield f'{PREFIX}requests_total{{status="{status}"}} {count}'
    yield from _head("images_total", "counter", "Images scored, by verdict.")
    for verdict, count in self._verdicts.items():
      yield f'{PREFIX}images_total{{verdict="{verdict}"}} {count}'
    yield from _head(
      "latency_seconds", "histogram", "From an image's last byte to its score."
    )
    total = 0
    for bound, count in zip((*BOUNDS, "+Inf"), self._buckets, strict=True):
      total += count
      yield f'{PREFIX}latency_seconds_bucket{{le="{bound}"}} {total}'
    yield f"{PREFIX}latency_seconds_sum {self._seconds:.6f}"
    yield f"{PREFIX}latency_seconds_count {total}"
    yield from _one("batches_total", "counter", "Batches scored.", batches)
    yield from _one(
      "computing_seconds_total", "counter", "Seconds of scoring batches.", computing
    )
    yield from _one("waiting_images", "gauge", "Images that wait.", waiting)
    yield from self._drift()

  def _drift(self) -> Iterator[str]:
    count = len(self._recent)
    said = f"of the last {RECENT} images"
    yield from _one("recent_images", "gauge", f"How many there are {said}.", count)
    if not count:  # nothing to say: 0 would say that all is well
      return
    scores, anomalous = (np.array(part) for part in zip(*self._recent, strict=True))
    yield from _one(
      "recent_anomalous_share",
      "gauge",
      f"Share of anomalous verdicts {said}.",
      float(anomalous.mean()),
    )
    yield from _one(
      "drift_ks",
      "gauge",
      f"Kolmogorov-Smirnov distance {said} from calibration's normal scores, 0 to 1.",
      distance(scores, self._normal),
    )
    yield from _one(
      "drift_ks_by_chance",
      "gauge",
      "What drift_ks exceeds once in a hundred times if nothing has drifted.",
      min(1.0, BY_CHANCE * math.sqrt(1 / count + 1 / len(self._normal))),
    )
    yield from _one(
      "drift_median",
      "gauge",
      f"Median score {said}, less that of calibration's normal images.",
      float(np.median(scores) - np.median(self._normal)),
    )


def distance(first: Float[np.ndarray, " n"], second: Float[np.ndarray, " m"]) -> float:
  """The Kolmogorov-Smirnov distance between two samples."""
  places = np.concatenate([first, second])
  one, other = (
    np.searchsorted(np.sort(sample), places, side="right") / len(sample)
    for sample in (first, second)
  )
  return float(np.abs(one - other).max())


def _one(name: str, kind: str, said: str, value: float | int) -> Iterator[str]:
  yield from _head(name, kind, said)
  yield f"{PREFIX}{name} {value:.10g}"


def _head(name: str, kind: str, said: str) -> Iterator[str]:
  yield f"# HELP {PREFIX}{name} {said}"
  yield f"# TYPE {PREFIX}{name} {kind}"
