"""Fits one category's scales and weights; keeps them in a file."""

from collections.abc import Mapping, Sequence
import io
import operator
import pathlib
from typing import NamedTuple

from absl import logging
from flax import traverse_util
import jax
from jaxtyping import Bool, Float, Float16
import numpy as np

from nps_jax import gaussian
from nps_jax import judging
from nps_jax import scoring
from nps_jax.models import counts
from nps_jax.runs import integrity

FOLDS = 10  # of the normal images, for what Gaussians and maps say of unknown ones
PRIOR_IMAGES = 40  # weight of the average position in a position's own statistics
SMALLEST_SHARE = 1e-6  # of a code, in the unit of its share

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
  gaussians, evidence = _gaussians(normal.pooled, normal.moves, counted)
  calibration = scoring.Calibration(
    priors=priors,
    mean={},
    spread={},
    quantiles={},
    gaussians=gaussians,
    evidence=evidence,
    usual=normal.usual,
    map_weights={},
  )
  calibration = _with_scales(config, calibration, validation)
  scaled = _scaled(config, calibration, validation)
  weights = dict.fromkeys(scaled, 1.0)
  if edited is not None:
    shown = _scaled(config, calibration, edited.raw)
    weights = judging.of_maps(scaled, shown, edited.masks, spared=(scoring.CODES,))
  calibration = calibration._replace(map_weights=weights)
  peaks = _unseen_peaks(config, calibration, validation)
  # The weights asked for Gaussians that had not seen the edited images; from here on
  # they are of all normal ones.
  rows = {
    name: np.concatenate([normal.pooled[name], validation.pooled[name]])
    for name in counted
  }
  gaussians, evidence = _gaussians(rows, normal.moves, counted)
  evidence[scoring.FUSED] = _moments(peaks)
  return calibration._replace(gaussians=gaussians, evidence=evidence)


def _gaussians(
  pooled: Mapping[str, Rows], moves: Mapping[str, Rows], counted: Sequence[str]
) -> tuple[dict[str, gaussian.Gaussian], dict[str, Float[np.ndarray, "2"]]]:
  """Each statistic's Gaussian, and the moments of unknown rows' distances from it."""
  gaussians, evidence = {}, {}
  for name in counted:
    rows, by_edits = pooled[name], moves.get(name)
    scale = _root(rows) if name == scoring.CODES else None
    gaussians[name] = gaussian.fit(rows, by_edits, scale)
    evidence[name] = _moments(gaussian.held_out(rows, FOLDS, by_edits, scale))
  return gaussians, evidence


def _unseen_peaks(
  config, calibration: scoring.Calibration, validation: scoring.RawScores
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
    part = _with_scales(config, blank, others)
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


def _with_scales(
  config, calibration: scoring.Calibration, validation: scoring.RawScores
) -> scoring.Calibration:
  """Its scales of maps: each position's, and then each map's quantiles."""
  there = [source for source in config.maps if source in validation.maps]
  if scoring.LAYOUT in config.maps and calibration.usual is not None:
    there.append(scoring.LAYOUT)
  blank = calibration._replace(mean=dict.fromkeys(there), spread={})
  raw = scoring.placed_maps(blank, validation)
  smoothed = {name: scoring.smooth(raw[name], config.smoothing) for name in there}
  moments = {
    name: position_statistics(maps, config.positionwise)
    for name, maps in smoothed.items()
  }
  calibration = calibration._replace(
    mean={name: mean for name, (mean, _) in moments.items()},
    spread={name: spread for name, (_, spread) in moments.items()},
  )
  far = scoring.distances(calibration, validation)
  unscaled = scoring.unscaled_maps(config, calibration, validation, far)
  quantiles = {
    name: np.quantile(maps, (config.low, config.high))
    for name, maps in unscaled.items()
  }
  return calibration._replace(quantiles=quantiles)


def _moments(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "2"]:
  return np.array([values.mean(), values.std(ddof=1) + 1e-12])


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
  """Logs how much each source's map weighs in the fused map."""
  weights = calibration.map_weights.items()
  listed = ", ".join(f"{source} {weight:.2f}" for source, weight in weights)
  logging.info("%s: weights in the map: %s.", category, listed)


def save(path: pathlib.Path, calibrations: Mapping[str, scoring.Calibration]) -> None:
  """Writes the categories' calibrations as one .npz of named arrays, with its sum."""
  flat = {}
  for category, calibration in calibrations.items():
    for name, leaf in traverse_util.flatten_dict(_nested(calibration), sep="/").items():
      if leaf is not None:
        flat[f"{category}/{name}"] = leaf
  buffer = io.BytesIO()
  np.savez(buffer, **flat)
  integrity.write(path, buffer.getvalue())


def _nested(calibration: scoring.Calibration) -> dict:
  """The calibration as dicts of arrays."""
  nested = calibration._asdict()
  nested["gaussians"] = {
    name: normal._asdict() for name, normal in calibration.gaussians.items()
  }
  nested["priors"] = calibration.priors._asdict()
  if calibration.priors.vocabulary is not None:
    nested["priors"]["vocabulary"] = calibration.priors.vocabulary._asdict()
  return nested


def load(path: pathlib.Path, remedy: str) -> dict[str, scoring.Calibration]:
  """The calibrations that `save` wrote, by category.

  Args:
    remedy: what to do where the file is damaged, for the message.

  Raises:
    FileNotFoundError, ValueError: the file or its sum is missing, or one is damaged.
  """
  with np.load(io.BytesIO(integrity.read(path, remedy)), allow_pickle=False) as stored:
    flat = {tuple(name.split("/")): stored[name] for name in stored.files}
  empty = {field: {} for field in scoring.Calibration._fields} | {"usual": None}
  calibrations = {}
  for category, parts in traverse_util.unflatten_dict(flat).items():
    fields = empty | parts  # empty dicts leave nothing in the file
    priors = dict(fields["priors"])
    if "vocabulary" in priors:
      priors["vocabulary"] = counts.Vocabulary(**priors["vocabulary"])
    fields["priors"] = scoring.Priors(**priors)
    fields["gaussians"] = {
      name: gaussian.Gaussian(**{**normal, "rest": float(normal["rest"])})
      for name, normal in fields["gaussians"].items()
    }
    fields["map_weights"] = {
      name: float(weight) for name, weight in fields["map_weights"].items()
    }
    calibrations[category] = scoring.Calibration(**fields)
  return calibrations
