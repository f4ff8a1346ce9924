"""Why an image has its score: which evidence spoke, where, and what of (ours)."""

from typing import NamedTuple

from jaxtyping import Float
import numpy as np
from scipy import ndimage

from nps_jax import gaussian
from nps_jax import scoring

LOCAL, GLOBAL = "local", "global"


class Reason(NamedTuple):
  """The strongest evidence of an image."""

  side: str  # "local": a place in the map; "global": the statistics of the whole image
  source: str  # the map that is highest there, or the statistic
  box: tuple[float, float, float, float]  # left, top, right, bottom of the strongest
  # region, as shares of the image's sides
  what: str  # of counts: which code there is too much or too little of; else ""

  def pixels(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box in pixels of an image of this height and width, its ends not within."""
    height, width = size
    left, top, right, bottom = self.box
    return (
      int(left * width),
      int(top * height),
      int(np.ceil(right * width)),
      int(np.ceil(bottom * height)),
    )


def explain(
  calibration: scoring.Calibration, raw: scoring.RawScores, judged: scoring.Judged
) -> list[Reason]:
  """The reason of each image's score, whether high or low."""
  reasons = []
  for index, values in enumerate(judged.maps):
    evidence = {name: float(rows[index]) for name, rows in judged.evidence.items()}
    strongest = max(evidence, key=evidence.get)
    side, source = GLOBAL, strongest
    if strongest == scoring.FUSED:
      at = np.unravel_index(np.argmax(values), values.shape)
      here = {name: float(maps[index][at]) for name, maps in judged.sources.items()}
      side, source = LOCAL, max(here, key=here.get)
    what = ""
    if source == scoring.CODES and scoring.CODES in calibration.gaussians:
      what = _miscounted(
        calibration.gaussians[scoring.CODES], raw.pooled[scoring.CODES][index]
      )
    reasons.append(Reason(side, source, strongest_region(values), what))
  return reasons


def strongest_region(
  values: Float[np.ndarray, "y x"],
) -> tuple[float, float, float, float]:
  """The box around the peak's region, which is what reaches half of the peak.

  As shares of the sides: left, top, right, bottom. A peak that is not above 0 stands
  for itself.
  """
  at = np.unravel_index(np.argmax(values), values.shape)
  peak = values[at]
  labels, _ = ndimage.label(values >= (peak / 2 if peak > 0 else peak))
  rows, columns = np.nonzero(labels == labels[at])
  height, width = values.shape
  return (
    columns.min() / width,
    rows.min() / height,
    (columns.max() + 1) / width,
    (rows.max() + 1) / height,
  )


def _miscounted(normal: gaussian.Gaussian, shares: Float[np.ndarray, " k"]) -> str:
  """The code that adds most to the squared distance of the shares."""
  gap = np.asarray(shares, np.float64) - normal.centre
  parts = gaussian.pull(normal, np.asarray(shares)[None])[0] * gap
  code = int(np.argmax(parts))
  return f"too {'much' if gap[code] > 0 else 'little'} of code {code}"
