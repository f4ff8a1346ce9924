"""Fits one category's scales and weights."""

from collections.abc import Mapping, Sequence
import operator
from typing import NamedTuple

from absl import logging
import jax
from jaxtyping import Float, Float16, Int
import numpy as np

from nps_jax import gaussian
from nps_jax import judging
from nps_jax import map_scales
from nps_jax import scoring
from nps_jax import verdict

FOLDS = 10  # of the normal images, for what Gaussians and maps say of unknown ones
FEW = 20  # normal images' scores, below which the threshold is hardly known
ODD = 4.0  # spreads from the median, beyond which a normal image's evidence is odd
ENOUGH = 40  # normal images, below which none can be called odd; where fewer are held
# out, training images are asked beside them
NORMAL_MAD = 1.4826  # of a normal distribution: its spread by its median deviation
SMALLEST_SHARE = 1e-6  # of a code, in the unit of its share

REACH = 0.1  # of a normal cell, in the fused map before it has a unit
SMALLEST_PEAKS = 0.01  # spread of the fused map's peaks, where REACH is a normal cell's

Rows = Float[np.ndarray, "_ _"]


TRAINED = (scoring.RECONSTRUCTION, scoring.DISCREPANCY, scoring.STRUCTURAL)


class Seen(NamedTuple):
  """Some training images, looked at as if they were new."""

  raw: scoring.RawScores  # the memory has passed over their own patches
  rows: Int[np.ndarray, " t"]  # which of the training images


class Normal(NamedTuple):
  """What a category's training images say of what is usual."""

  pooled: Mapping[str, Rows]  # their statistics, by source
  moves: Mapping[str, Rows]  # by how much edits of them moved these; none: no rows
  usual: Float16[np.ndarray, "h w k"] | None  # how often a code is there, blurred
  seen: Seen | None = None


def fit(
  config,
  priors: scoring.Priors,
  normal: Normal,
  validation: scoring.RawScores,
  edited: map_scales.Edited | None,
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
  floors = map_scales.floors(config, calibration, validation, edited)
  calibration = map_scales.fitted(config, calibration, validation, floors)
  calibration, least_peaks = _weighted(config, calibration, validation, edited)
  peaks = _unseen_peaks(config, calibration, validation, floors)
  held_out = np.arange(-images, 0)  # rows of all statistics
  if normal.seen is not None:
    of_seen = _seen_peaks(config, calibration, validation, normal.seen, far)
    peaks = np.concatenate([of_seen, peaks])
    held_out = np.concatenate([normal.seen.rows, held_out])
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
  # A training image may own codes of the vocabulary, as it helped to choose them, and
  # then be farther from other folds than any new image.
  far = {
    name: np.append(_drawn_in(values)[:-images], values[-images:])[held_out]
    for name, values in far.items()
  }
  return _in_units(config, calibration, peaks, far)


def _weighted(
  config,
  calibration: scoring.Calibration,
  validation: scoring.RawScores,
  edited: map_scales.Edited | None,
) -> tuple[scoring.Calibration, float]:
  """With the maps' weights; and the least spread of the fused map's peaks."""
  scaled = _scaled(config, calibration, validation)
  if edited is None:
    weights = dict.fromkeys(scaled, 1.0)
    return calibration._replace(map_weights=weights), SMALLEST_PEAKS
  shown = _scaled(config, calibration, edited.raw)
  weights = judging.of_maps(scaled, shown, edited.masks, spared=(scoring.CODES,))
  calibration = calibration._replace(map_weights=weights)
  peaks = scoring.peak(config, scoring.fuse(calibration, shown))
  response = float(np.median(peaks))
  return calibration, max(SMALLEST_PEAKS, map_scales.SMALLEST * response)


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
      # The mean: more than half of the edits may move nothing.
      far = np.mean(gaussian.distance(gaussians[name], edited))
      least[name] = max(1e-12, map_scales.SMALLEST * float(far))
  return least


def _unseen_peaks(
  config,
  calibration: scoring.Calibration,
  validation: scoring.RawScores,
  floors: map_scales.Floors,
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
    part = map_scales.fitted(config, blank, others, floors)
    maps = scoring.fuse(part, _scaled(config, part, judged))
    peaks[fold == own] = scoring.peak(config, maps)
  return peaks


def _seen_peaks(
  config,
  calibration: scoring.Calibration,
  validation: scoring.RawScores,
  seen: Seen,
  far: Mapping[str, Float[np.ndarray, " m"]],
) -> Float[np.ndarray, " t"]:
  """The peak of each training image's fused map, as if it had been a new image's.

  The modules rebuild what they have been trained on the better: those maps are made as
  high in the mean as the validation images' are.

  Args:
    far: the distances of all training images' statistics from those of other folds.
  """
  maps = dict(seen.raw.maps)
  for name in set(TRAINED) & set(maps):
    maps[name] = maps[name] * (validation.maps[name].mean() / maps[name].mean())
  raw = seen.raw._replace(maps=maps)
  far = {name: _drawn_in(values)[seen.rows] for name, values in far.items()}
  scaled = scoring.scaled_maps(config, calibration, raw, far)
  return scoring.peak(config, scoring.fuse(calibration, scaled))


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


def _moments(
  values: Float[np.ndarray, " n"], smallest: float = 1e-12
) -> Float[np.ndarray, "2"]:
  """Mean and spread, which is at least this.

  Odd values are drawn in, so that one odd image among the normal ones does not blunt
  the score for all others.
  """
  values = _drawn_in(values)
  return np.array([values.mean(), max(values.std(ddof=1), smallest)])


def _drawn_in(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
  """Of ENOUGH values none is farther than ODD spreads from their median."""
  middle = np.median(values)
  spread = NORMAL_MAD * np.median(np.abs(values - middle))
  if spread == 0 or len(values) < ENOUGH:
    return values
  return np.clip(values, middle - ODD * spread, middle + ODD * spread)


def tell(category: str, calibration: scoring.Calibration) -> None:
  """Logs how much each source's map weighs, and how certain the threshold is."""
  weights = calibration.map_weights.items()
  listed = ", ".join(f"{source} {weight:.2f}" for source, weight in weights)
  logging.info("%s: weights in the map: %s.", category, listed)
  images = len(calibration.normal[scoring.SCORE])
  limit = verdict.threshold(calibration.normal[scoring.SCORE], verdict.RATE)
  logging.log(
    logging.WARNING if images < FEW else logging.INFO,
    "%s: above a score of 1 an image is anomalous. Of normal images one in %.0f is to "
    "be expected there, by %d that were held out or are looked at as if they were; the "
    "threshold is certain to be (90 %%) between %.2f and %.2f.%s",
    *(category, 1 / verdict.RATE, images, limit.low, limit.high),
    " With so few images it says little: give more." if images < FEW else "",
  )
