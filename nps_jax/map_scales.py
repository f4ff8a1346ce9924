"""The scales of a category's maps: each position's, and each map's quantiles."""

from collections.abc import Mapping
from typing import NamedTuple

from jaxtyping import Bool, Float
import numpy as np

from nps_jax import scoring

PRIOR_IMAGES = 40  # weight of the average position in a position's own statistics
SMALLEST = 0.005  # of what an edit makes of a value: what is usual spreads as much
SMALLEST_RANGE = 0.01  # between the quantiles of a map, in spreads


class Edited(NamedTuple):
  """Edited copies of validation images."""

  raw: scoring.RawScores
  masks: Bool[np.ndarray, "e y x"]  # the cells of the maps that were changed


class Floors(NamedTuple):
  """By source, how little its map may vary; SMALLEST of what an edit makes of it.

  So images that are all the same, or nearly, do not make of one grey level a fault.
  """

  spread: Mapping[str, float]  # of a position
  reach: Mapping[str, float]  # between the quantiles, in spreads


def floors(
  config,
  calibration: scoring.Calibration,
  validation: scoring.RawScores,
  edited: Edited | None,
) -> Floors:
  """What the maps of edits say; where there are none, nearly nothing."""
  there = _there(config, calibration, validation)
  least = Floors(dict.fromkeys(there, 1e-12), {})
  if edited is None or not edited.masks.any():
    return least
  blank = calibration._replace(mean=dict.fromkeys(there))
  usual, shown = (scoring.placed_maps(blank, raw) for raw in (validation, edited.raw))
  for name in there:
    peaks = np.where(edited.masks, shown[name], -np.inf).max(axis=(1, 2))
    response = np.median(peaks[np.isfinite(peaks)]) - usual[name].mean()
    least.spread[name] = max(1e-12, SMALLEST * float(response))
  calibration = fitted(config, calibration, validation, least)
  far = scoring.distances(calibration, edited.raw)
  shown = scoring.unscaled_maps(config, calibration, edited.raw, far)
  peaks = {name: maps.max(axis=(1, 2)) for name, maps in shown.items()}
  reach = {name: SMALLEST * float(np.median(high)) for name, high in peaks.items()}
  return least._replace(reach=reach)


def fitted(
  config,
  calibration: scoring.Calibration,
  validation: scoring.RawScores,
  floors: Floors,
) -> scoring.Calibration:
  """Its scales of maps: each position's, and then each map's quantiles."""
  there = _there(config, calibration, validation)
  blank = calibration._replace(mean=dict.fromkeys(there), spread={})
  raw = scoring.placed_maps(blank, validation)
  smoothed = {name: scoring.smooth(raw[name], config.smoothing) for name in there}
  moments = {
    name: position_statistics(maps, config.positionwise)
    for name, maps in smoothed.items()
  }
  calibration = calibration._replace(
    mean={name: mean for name, (mean, _) in moments.items()},
    spread={
      name: np.maximum(spread, floors.spread[name])
      for name, (_, spread) in moments.items()
    },
  )
  far = scoring.distances(calibration, validation)
  unscaled = scoring.unscaled_maps(config, calibration, validation, far)
  quantiles = {}
  for name, maps in unscaled.items():
    low, high = np.quantile(maps, (config.low, config.high))
    least = max(SMALLEST_RANGE, floors.reach.get(name, 0.0))
    quantiles[name] = np.array([low, max(high, low + least)])
  return calibration._replace(quantiles=quantiles)


def _there(
  config, calibration: scoring.Calibration, validation: scoring.RawScores
) -> list[str]:
  """The sources whose maps are scaled position by position."""
  there = [source for source in config.maps if source in validation.maps]
  if scoring.LAYOUT in config.maps and calibration.usual is not None:
    there.append(scoring.LAYOUT)
  return there


def position_statistics(
  maps: Float[np.ndarray, "n y x"], positionwise: bool
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]]:
  """Mean and spread of each position, drawn towards the whole map's when n is small.

  A position's own moments weigh n, the average position's PRIOR_IMAGES (ours). Not
  position-wise: every position has the whole map's moments.
  """
  n, grid = maps.shape[0], maps.shape[1:]
  if not positionwise or n < 2:
    return np.full(grid, maps.mean()), np.full(grid, maps.std() + 1e-12)
  own = n / (n + PRIOR_IMAGES)
  mean = own * maps.mean(axis=0) + (1 - own) * maps.mean()
  within = maps.var(axis=0, ddof=1)
  return mean, np.sqrt(own * within + (1 - own) * within.mean()) + 1e-12
