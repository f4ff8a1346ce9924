"""Fits one category's scales and weights."""

from collections.abc import Mapping, Sequence
import operator
from typing import NamedTuple

from absl import logging
import jax
from jaxtyping import Bool, Float, Float16
import numpy as np

from nps_jax import gaussian
from nps_jax import judging
from nps_jax import scoring
from nps_jax import verdict

FOLDS = 10  # of the normal images, for what Gaussians and maps say of unknown ones
PRIOR_IMAGES = 40  # weight of the average position in a position's own statistics
FEW = 20  # held-out normal images, below which the threshold is hardly known
ODD = 4.0  # spreads from the median, beyond which a normal image's evidence is odd
ENOUGH = 40  # normal images, below which none can be called odd
NORMAL_MAD = 1.4826  # of a normal distribution: its spread by its median deviation
SMALLEST_SHARE = 1e-6  # of a code, in the unit of its share

REACH = 0.1  # of a normal cell, in the fused map before it has a unit
SMALLEST = 0.005  # of what an edit makes of a value: what is usual spreads as much
SMALLEST_RANGE = 0.01  # between the quantiles of a map, in spreads
SMALLEST_PEAKS = 0.01  # spread of the fused map's peaks, where REACH is a normal cell's

Rows = Float[np.ndarray, "_ _"]


class Normal(NamedTuple):
  """What a category's training images say of what is usual."""

  pooled: Mapping[str, Rows]  # their statistics, by source
  moves: Mapping[str, Rows]  # by how much edits of them moved these; none: no rows
  usual: Float16[np.ndarray, "h w k"] | None  # how often a code is there, blurred


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


def fit(
  config,
  priors: scoring.Priors,
  normal: Normal,
  validation: scoring.RawScores,
  edited: Edited | None,
) -> scoring.Calibration:
  """The scales of one category.

  Args:
    config: the `scoring` section.
    validation: scores of its validation images, all good; at least 2.
    edited: what the maps' weights are learned on; None: they weigh alike.

  Raises:
    ValueError: fewer than 2 validation images.
  """
  images = len(next(iter((validation.maps | validation.pooled).values())))
  if images < 2:
    raise ValueError(
      f"Calibration needs at least 2 validation images and found {images}; move some "
      "training images to validation/good, or raise config.data.validation_fraction."
    )
  counted = _counted(config, normal)
  gaussians, far = _gaussians(normal.pooled, normal.moves, counted)
  least = _smallest_evidence(gaussians, normal)
  calibration = scoring.Calibration(
    priors=priors,
    mean={},
    spread={},
    quantiles={},
    gaussians=gaussians,
    evidence={name: _moments(values, least[name]) for name, values in far.items()},
    usual=normal.usual,
    map_weights={},
    unit={scoring.SCORE: 1.0, scoring.MAP: 1.0},
    normal={},
  )
  floors = _floors(config, calibration, validation, edited)
  calibration = _with_scales(config, calibration, validation, floors)
  scaled = _scaled(config, calibration, validation)
  weights, least_peaks = dict.fromkeys(scaled, 1.0), SMALLEST_PEAKS
  if edited is not None:
    shown = _scaled(config, calibration, edited.raw)
    weights = judging.of_maps(scaled, shown, edited.masks, spared=(scoring.CODES,))
    fused = scoring.fuse(calibration._replace(map_weights=weights), shown)
    far = float(np.median(scoring.peak(config, fused)))
    least_peaks = max(SMALLEST_PEAKS, SMALLEST * far)
  calibration = calibration._replace(map_weights=weights)
  peaks = _unseen_peaks(config, calibration, validation, floors)
  # The weights asked for Gaussians that had not seen the edited images; from here on
  # they are of all normal ones.
  rows = {
    name: np.concatenate([normal.pooled[name], validation.pooled[name]])
    for name in counted
  }
  gaussians, far = _gaussians(rows, normal.moves, counted)
  least = _smallest_evidence(gaussians, normal)
  evidence = {name: _moments(values, least[name]) for name, values in far.items()}
  evidence[scoring.FUSED] = _moments(peaks, least_peaks)
  calibration = calibration._replace(gaussians=gaussians, evidence=evidence)
  held_out = {name: values[-images:] for name, values in far.items()}
  return _in_units(config, calibration, peaks, held_out)


def _in_units(
  config,
  calibration: scoring.Calibration,
  peaks: Float[np.ndarray, " v"],
  far: Mapping[str, Float[np.ndarray, " v"]],
) -> scoring.Calibration:
  """With the units in which 1 is the threshold, from held-out normal images.

  Args:
    peaks: of their fused maps.
    far: their statistics' distances.
  """
  scores = sum(scoring.weigh(config, calibration, peaks, far).values())
  normal = {scoring.SCORE: scores, scoring.MAP: peaks}
  unit = {
    name: max(verdict.threshold(values, verdict.RATE).value, REACH)
    for name, values in normal.items()
  }
  normal = {name: np.sort(values / unit[name]) for name, values in normal.items()}
  return calibration._replace(unit=unit, normal=normal)


def _gaussians(
  pooled: Mapping[str, Rows], moves: Mapping[str, Rows], counted: Sequence[str]
) -> tuple[dict[str, gaussian.Gaussian], dict[str, Float[np.ndarray, " m"]]]:
  """Each statistic's Gaussian, and how far each row is from those of other folds."""
  gaussians, far = {}, {}
  for name in counted:
    rows, by_edits = pooled[name], moves.get(name)
    scale = _root(rows) if name == scoring.CODES else None
    gaussians[name] = gaussian.fit(rows, by_edits, scale)
    far[name] = gaussian.held_out(rows, FOLDS, by_edits, scale)
  return gaussians, far


def _smallest_evidence(
  gaussians: Mapping[str, gaussian.Gaussian], normal: Normal
) -> dict[str, float]:
  """By statistic, what the spread of normal distances is at least.

  SMALLEST of how far edits lie, so that images that are all the same do not make scores
  of millions.
  """
  least = dict.fromkeys(gaussians, 1e-12)
  for name, moves in normal.moves.items():
    if name in gaussians and len(moves):
      edited = normal.pooled[name].mean(axis=0) + moves
      far = np.median(gaussian.distance(gaussians[name], edited))
      least[name] = max(1e-12, SMALLEST * float(far))
  return least


def _floors(
  config,
  calibration: scoring.Calibration,
  validation: scoring.RawScores,
  edited: Edited | None,
) -> Floors:
  """What the maps of edits say; where there are none, nearly nothing."""
  there = _there(config, calibration, validation)
  floors = Floors(dict.fromkeys(there, 1e-12), {})
  if edited is None or not edited.masks.any():
    return floors
  blank = calibration._replace(mean=dict.fromkeys(there))
  usual, shown = (scoring.placed_maps(blank, raw) for raw in (validation, edited.raw))
  for name in there:
    peaks = np.where(edited.masks, shown[name], -np.inf).max(axis=(1, 2))
    response = np.median(peaks[np.isfinite(peaks)]) - usual[name].mean()
    floors.spread[name] = max(1e-12, SMALLEST * float(response))
  calibration = _with_scales(config, calibration, validation, floors)
  far = scoring.distances(calibration, edited.raw)
  shown = scoring.unscaled_maps(config, calibration, edited.raw, far)
  peaks = {name: maps.max(axis=(1, 2)) for name, maps in shown.items()}
  reach = {name: SMALLEST * float(np.median(high)) for name, high in peaks.items()}
  return floors._replace(reach=reach)


def _unseen_peaks(
  config,
  calibration: scoring.Calibration,
  validation: scoring.RawScores,
  floors: Floors,
) -> Float[np.ndarray, " n"]:
  """The peak of each image's fused map under the other folds' scales."""
  images = len(next(iter((validation.maps | validation.pooled).values())))
  fold = np.arange(images) % min(FOLDS, images)
  peaks = np.empty(images)
  blank = calibration._replace(mean={}, spread={}, quantiles={})
  for own in np.unique(fold):
    others, judged = (
      jax.tree.map(operator.itemgetter(chosen), validation)
      for chosen in (fold != own, fold == own)
    )
    part = _with_scales(config, blank, others, floors)
    maps = scoring.fuse(part, _scaled(config, part, judged))
    peaks[fold == own] = scoring.peak(config, maps)
  return peaks


def _scaled(
  config, calibration: scoring.Calibration, raw: scoring.RawScores
) -> dict[str, Float[np.ndarray, "n y x"]]:
  far = scoring.distances(calibration, raw)
  return scoring.scaled_maps(config, calibration, raw, far)


def _counted(config, normal: Normal) -> list[str]:
  """The statistics that are there and that the score or a map asks for."""
  asked = {*config.pooled, *({scoring.CODES} & set(config.maps))}
  return [name for name in sorted(normal.pooled) if name in asked]


def _root(shares: Rows) -> Float[np.ndarray, " k"]:
  """A count's own unit, the root of its mean: rare codes are not drowned, nor noisy."""
  return np.sqrt(np.asarray(shares, np.float64).mean(axis=0) + SMALLEST_SHARE)


def _there(
  config, calibration: scoring.Calibration, validation: scoring.RawScores
) -> list[str]:
  """The sources whose maps are scaled position by position."""
  there = [source for source in config.maps if source in validation.maps]
  if scoring.LAYOUT in config.maps and calibration.usual is not None:
    there.append(scoring.LAYOUT)
  return there


def _with_scales(
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


def _moments(
  values: Float[np.ndarray, " n"], smallest: float = 1e-12
) -> Float[np.ndarray, "2"]:
  """Mean and spread, which is at least this.

  Of ENOUGH values those beyond ODD spreads from their median are drawn in to there, so
  that one odd image among the normal ones does not blunt the score for all others.
  """
  middle = np.median(values)
  spread = NORMAL_MAD * np.median(np.abs(values - middle))
  if spread > 0 and len(values) >= ENOUGH:
    values = np.clip(values, middle - ODD * spread, middle + ODD * spread)
  return np.array([values.mean(), max(values.std(ddof=1), smallest)])


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


def tell(category: str, calibration: scoring.Calibration) -> None:
  """Logs how much each source's map weighs, and how certain the threshold is."""
  weights = calibration.map_weights.items()
  listed = ", ".join(f"{source} {weight:.2f}" for source, weight in weights)
  logging.info("%s: weights in the map: %s.", category, listed)
  images = len(calibration.normal[scoring.SCORE])
  limit = verdict.threshold(calibration.normal[scoring.SCORE], verdict.RATE)
  logging.log(
    logging.WARNING if images < FEW else logging.INFO,
    "%s: above a score of 1 an image is anomalous. Of %d normal images that were held "
    "out, one in %.0f is to be expected there; the threshold is certain to be (90 %%) "
    "between %.2f and %.2f.%s",
    *(category, images, 1 / verdict.RATE, limit.low, limit.high),
    " With so few images it says little: give more." if images < FEW else "",
  )
