"""From raw evidence to one calibrated map and score for each image."""

from collections.abc import Mapping
import math
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float16
import numpy as np
from scipy import ndimage

from nps_jax import gaussian
from nps_jax import losses
from nps_jax.models import counts
from nps_jax.models import grids
from nps_jax.models import memory as memories

RECONSTRUCTION, DISCREPANCY = "reconstruction", "discrepancy"  # the logical module's
STRUCTURAL = "structural"  # the structural module's map
MEMORY = "memory"  # the map of the distance to normal patches
CODES = "codes"  # the shares of the vocabulary's codes, and the map of odd ones
LAYOUT = "layout"  # the map of codes that are rare where they are
FEATURES, RESIDUAL = "features", "residual"  # pooled; the latter of the logical module
FUSED = "fused"  # all maps together
SCORE, MAP = "score", "map"  # what has a unit
STRIDE = 4  # raw maps have one cell for each 4 x 4 pixels of the model's input
RARE = 1e-4  # share of normal images beside which a code is no rarer in its place


class Priors(NamedTuple):
  """What normal images are made of; chosen from a category's training images."""

  memory: memories.Memory | None = None  # patches
  vocabulary: counts.Vocabulary | None = None  # scenes


class RawScores(NamedTuple):
  """Uncalibrated evidence; the maps are on the stride-4 grid."""

  maps: dict[str, Float[Array, "b y x"]]  # by source; at least one
  pooled: dict[str, Float[Array, "b _"]]  # by source: statistics over all positions
  cells: Float16[Array, "b h w k"] | None = None  # each position's belonging to codes


class Calibration(NamedTuple):
  """One category's priors and scales, all from its normal images."""

  priors: Priors
  mean: dict[str, Float[np.ndarray, "y x"]]  # of the raw map, position by position
  spread: dict[str, Float[np.ndarray, "y x"]]
  quantiles: dict[str, Float[np.ndarray, "2"]]  # of the scaled map: low and high
  gaussians: dict[str, gaussian.Gaussian]  # of the pooled statistics
  evidence: dict[str, Float[np.ndarray, "2"]]  # each source's mean and spread
  usual: Float16[np.ndarray, "h w k"] | None  # how often a code is there, blurred
  map_weights: dict[str, float]  # of each source's map in the fused one
  unit: dict[str, float]  # what the score, and the map, are divided by: a normal image
  # is to be above 1 as rarely as verdict.RATE says
  normal: dict[str, Float[np.ndarray, " v"]]  # held-out normal images' scores, and the
  # peaks of their maps, in these units; ascending


class Judged(NamedTuple):
  """Calibrated maps and scores, and what they are made of."""

  maps: Float[np.ndarray, "n y x"]
  scores: Float[np.ndarray, " n"]
  evidence: dict[str, Float[np.ndarray, " n"]]  # the score's terms, by source
  sources: dict[str, Float[np.ndarray, "n y x"]]  # the map's, weighted


def raw_map(
  target: Mapping[int, Float[Array, "b _ _ _"]],
  rebuilt: Mapping[int, Float[Array, "b _ _ _"]],
  distance: str,
  grid: tuple[int, int],
) -> Float[Array, "b y x"]:
  """The mean over levels of the distance maps, bilinear on the grid."""
  maps = [
    on_grid(losses.gap_map(target[level], feats, distance), grid)
    for level, feats in rebuilt.items()
  ]
  return jnp.mean(jnp.stack(maps), axis=0)


def on_grid(gap: Float[Array, "b h w"], grid: tuple[int, int]) -> Float[Array, "b y x"]:
  """A level's map at the grid's size, bilinear."""
  return grids.resized(gap[..., None], grid)[..., 0]


def moments(maps: list[Float[Array, "b _ _ _"]]) -> Float[Array, "b _"]:
  """Mean and spread over positions, channel by channel, level by level (ours).

  The maximum of a map forgets how much there was, and of what sort; these keep it.
  """
  return jnp.concatenate(
    [moment(level, axis=(1, 2)) for level in maps for moment in (jnp.mean, jnp.std)],
    axis=-1,
  )


def residual(
  target: Mapping[int, Float[Array, "b _ _ _"]],
  rebuilt: Mapping[int, Float[Array, "b _ _ _"]],
) -> Float[Array, "b _"]:
  """The moments of target - rebuilt, signed and of features at length 1."""
  return moments(
    [
      losses.unit(target[level]) - losses.unit(feats)
      for level, feats in rebuilt.items()
    ]
  )


def smooth(
  maps: Float[np.ndarray, "n y x"], sigma: float
) -> Float[np.ndarray, "n y x"]:
  """The maps in float64 under a Gaussian; 0: unchanged.

  Args:
    sigma: its spread in pixels of an image of 256 x 256 of them, or as many in all.
  """
  maps = np.asarray(maps, np.float64)
  if sigma == 0:
    return maps
  cells = sigma * math.sqrt(maps.shape[1] * maps.shape[2]) / 256
  return ndimage.gaussian_filter(maps, (0, cells, cells))


def distances(
  calibration: Calibration, raw: RawScores
) -> dict[str, Float[np.ndarray, " n"]]:
  """How far each image's statistics are from normal ones, by source."""
  return {
    name: gaussian.distance(normal, raw.pooled[name])
    for name, normal in calibration.gaussians.items()
  }


def counted_places(
  config, calibration: Calibration, raw: RawScores
) -> Float[np.ndarray, "n y x"]:
  """Where the codes are that an image has too much of, or should have; peaks at 1.

  The squared distance of the shares from normal ones is a sum over codes, and each
  share is a mean over positions: so it is a mean over positions of pull times
  (belonging - usual belonging), but for a constant. A position stands out where it
  belongs to a code of which there is too much, or where normal images have one of which
  there is too little (ours).
  """
  pull = gaussian.pull(calibration.gaussians[CODES], raw.pooled[CODES])
  pull = pull.astype(np.float32)
  odd = np.einsum("nhwk,nk->nhw", raw.cells.astype(np.float32), pull)
  odd -= np.einsum("hwk,nk->nhw", calibration.usual.astype(np.float32), pull)
  places = smooth(_fine(np.maximum(odd, 0), raw), config.smoothing)
  return places / (places.max(axis=(1, 2), keepdims=True) + 1e-12)


def rare_places(calibration: Calibration, raw: RawScores) -> Float[np.ndarray, "n y x"]:
  """The negative logarithm of how usual each position's codes are there (ours).

  What is normal elsewhere stands out where the product has fixed places.
  """
  cells, usual = (part.astype(np.float32) for part in (raw.cells, calibration.usual))
  odd = -np.log(np.einsum("nhwk,hwk->nhw", cells, usual) + RARE)
  return _fine(odd, raw)


def _fine(
  maps: Float[np.ndarray, "n h w"], raw: RawScores
) -> Float[np.ndarray, "n y x"]:
  """Maps of the counted level on the grid of the raw ones, bilinear: `on_grid`."""
  grid = next(iter(raw.maps.values())).shape[1:]
  times = [new / old for new, old in zip(grid, maps.shape[1:], strict=True)]
  return ndimage.zoom(maps, (1, *times), order=1, mode="nearest", grid_mode=True)


def placed_maps(
  calibration: Calibration, raw: RawScores
) -> dict[str, Float[np.ndarray, "n y x"]]:
  """The raw maps that are scaled position by position: all but the codes'."""
  maps = {source: raw.maps[source] for source in calibration.mean if source != LAYOUT}
  if LAYOUT in calibration.mean:
    maps[LAYOUT] = rare_places(calibration, raw)
  return maps


def standard(
  calibration: Calibration, source: str, values: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
  """The evidence in spreads of normal images; softly cut below usual, 0 or more.

  What is calmer than usual takes nothing away from other evidence: an image with a part
  missing has fewer places that could be odd.
  """
  mean, spread = calibration.evidence[source]
  return np.logaddexp(0, (values - mean) / spread)


def unscaled_maps(
  config,
  calibration: Calibration,
  raw: RawScores,
  far: Mapping[str, Float[np.ndarray, " n"]],
) -> dict[str, Float[np.ndarray, "n y x"]]:
  """Each source's smoothed map, in spreads of each position.

  That of the codes is their places, as high as the shares are far from normal ones.

  Args:
    far: the statistics' distances from normal ones.
  """
  maps = {
    source: (smooth(values, config.smoothing) - calibration.mean[source])
    / calibration.spread[source]
    for source, values in placed_maps(calibration, raw).items()
  }
  if CODES in config.maps and CODES in far:
    height = standard(calibration, CODES, far[CODES])[:, None, None]
    maps[CODES] = height * counted_places(config, calibration, raw)
  return maps


def scaled_maps(
  config,
  calibration: Calibration,
  raw: RawScores,
  far: Mapping[str, Float[np.ndarray, " n"]],
) -> dict[str, Float[np.ndarray, "n y x"]]:
  """Each source's map, scaled by the quantiles of normal images.

  The scale is EfficientAD's: 0.1 (m - low) / (high - low).
  """
  scaled_by_source = {}
  for source, maps in unscaled_maps(config, calibration, raw, far).items():
    low, high = calibration.quantiles[source]
    scaled_by_source[source] = 0.1 * (maps - low) / max(high - low, 1e-12)
  return scaled_by_source


def fuse(
  calibration: Calibration, scaled: Mapping[str, Float[np.ndarray, "n y x"]]
) -> Float[np.ndarray, "n y x"]:
  """The calibrated map: the weighted mean of the sources' scaled maps."""
  weights = [calibration.map_weights[source] for source in scaled]
  return np.average(list(scaled.values()), axis=0, weights=weights)


def score(config, calibration: Calibration, raw: RawScores) -> Judged:
  """The calibrated maps, and the image scores: 0 or more.

  A score is what the map's peak says plus what each of the statistics says, in spreads
  of normal images. Scores and maps are then in units of their thresholds: 1 is what a
  normal image reaches as rarely as verdict.RATE says, in its map anywhere.

  # Differs from the paper: there the score is the fused map's peak, which cannot count;
  set config.scoring.pooled to () for the peak alone.
  """
  far = distances(calibration, raw)
  scaled = scaled_maps(config, calibration, raw, far)
  maps = fuse(calibration, scaled)
  evidence = weigh(config, calibration, peak(config, maps), far)
  return Judged(
    maps / calibration.unit[MAP],
    sum(evidence.values()) / calibration.unit[SCORE],
    evidence,
    {name: calibration.map_weights[name] * values for name, values in scaled.items()},
  )


def within(judged: Judged, inside: Bool[np.ndarray, "y x"]) -> Judged:
  """The same with maps that are lowest outside of a region."""
  maps, *sources = (
    np.where(inside[None], values, values.min())
    for values in (judged.maps, *judged.sources.values())
  )
  by_source = dict(zip(judged.sources, sources, strict=True))
  return judged._replace(maps=maps, sources=by_source)


def weigh(
  config,
  calibration: Calibration,
  peaks: Float[np.ndarray, " n"],
  far: Mapping[str, Float[np.ndarray, " n"]],
) -> dict[str, Float[np.ndarray, " n"]]:
  """The terms of the image scores: of the fused maps' peaks, and of the statistics."""
  told = {FUSED: peaks} | {name: far[name] for name in config.pooled if name in far}
  return {name: standard(calibration, name, values) for name, values in told.items()}


def peak(config, maps: Float[np.ndarray, "n y x"]) -> Float[np.ndarray, " n"]:
  """Each map's maximum, or the mean of its highest 1 % of positions."""
  flat = np.sort(maps.reshape(len(maps), -1), axis=1)
  top = max(1, flat.shape[1] // 100) if config.image == "top1" else 1
  return flat[:, -top:].mean(axis=1)
