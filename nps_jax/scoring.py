"""From what the modules rebuilt to one calibrated map and score for each image."""

from collections.abc import Mapping
import io
import pathlib
from typing import NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np
from scipy import ndimage

from nps_jax import files
from nps_jax import losses

STRUCTURAL = "structural"  # the structural module's map; others are the logical one's
STRIDE = 4  # raw maps have one cell for each 4 x 4 pixels of the model's input
PRIOR_IMAGES = 10  # weight of the average position in a position's own statistics


class RawScores(NamedTuple):
  """Uncalibrated evidence; every part is on the stride-4 grid."""

  maps: dict[str, Float[Array, "b y x"]]  # by source, such as "reconstruction"
  pooled: Float[Array, "b s"]  # statistics of the logical module's residual


class Gaussian(NamedTuple):
  """A Gaussian whose covariance is of low rank plus a multiple of the identity."""

  centre: Float[np.ndarray, " s"]
  scale: Float[np.ndarray, " s"]  # each column's spread; infinite where it is constant
  basis: Float[np.ndarray, "r s"]  # orthonormal directions of the standardised rows
  precision: Float[np.ndarray, " r"]  # along the basis
  rest: float  # precision across it


class Calibration(NamedTuple):
  """One category's scales, all from its normal images that are not for testing."""

  mean: dict[str, Float[np.ndarray, "y x"]]  # of the raw map, position by position
  spread: dict[str, Float[np.ndarray, "y x"]]
  quantiles: dict[str, Float[np.ndarray, "2"]]  # of the scaled map: low and high
  residual: Gaussian
  peak: Float[np.ndarray, "2"]  # mean and spread of the map's image score
  distance: Float[np.ndarray, "2"]  # mean and spread of the Gaussian's distance


def raw_map(
  target: Mapping[int, Float[Array, "b _ _ _"]],
  rebuilt: Mapping[int, Float[Array, "b _ _ _"]],
  distance: str,
  grid: tuple[int, int],
) -> Float[Array, "b y x"]:
  """The mean over levels of the distance maps, bilinear on the grid."""
  maps = [
    jax.image.resize(gap, (gap.shape[0], *grid), "bilinear")
    for gap in (
      losses.gap_map(target[level], feats, distance) for level, feats in rebuilt.items()
    )
  ]
  return jnp.mean(jnp.stack(maps), axis=0)


def pooled_residual(
  target: Mapping[int, Float[Array, "b _ _ _"]],
  rebuilt: Mapping[int, Float[Array, "b _ _ _"]],
) -> Float[Array, "b s"]:
  """Mean and spread over positions, channel by channel, of target - rebuilt (ours).

  The maximum of a map forgets how much was left unexplained and of what sort; these
  statistics keep it. The residual is signed, of features at length 1.
  """
  parts = []
  for level, feats in rebuilt.items():
    residual = losses.unit(target[level]) - losses.unit(feats)
    parts += [jnp.mean(residual, axis=(1, 2)), jnp.std(residual, axis=(1, 2))]
  return jnp.concatenate(parts, axis=-1)


def smooth(
  maps: Float[np.ndarray, "n y x"], sigma: float
) -> Float[np.ndarray, "n y x"]:
  """The maps in float64 under a Gaussian of `sigma` input pixels; 0: unchanged."""
  maps = np.asarray(maps, np.float64)
  if sigma == 0:
    return maps
  return ndimage.gaussian_filter(maps, (0, sigma / STRIDE, sigma / STRIDE))


def fit(config, validation: RawScores, normal: Float[np.ndarray, "m s"]) -> Calibration:
  """The scales of one category.

  Args:
    config: the `scoring` section.
    validation: scores of its validation images, all good; at least 2.
    normal: pooled residuals of its normal training images, for the Gaussian: its many
      dimensions need more images than a validation split has.

  Raises:
    ValueError: fewer than 2 validation images.
  """
  count = len(validation.pooled)
  if count < 2:
    raise ValueError(
      f"Calibration needs at least 2 validation images and found {count}; move some "
      "training images to validation/good, or raise config.data.validation_fraction."
    )
  mean, spread, quantiles = {}, {}, {}
  for source, raw in validation.maps.items():
    maps = smooth(raw, config.smoothing)
    mean[source], spread[source] = position_statistics(maps, config.positionwise)
    scaled = (maps - mean[source]) / spread[source]
    quantiles[source] = np.quantile(scaled, (config.low, config.high))
  found = Calibration(
    mean,
    spread,
    quantiles,
    fit_gaussian(normal),
    np.array([0.0, 1.0]),
    np.array([0.0, 1.0]),
  )
  peaks = peak(config, fused_map(config, found, validation))
  distances = mahalanobis(found.residual, validation.pooled)
  return found._replace(peak=_moments(peaks), distance=_moments(distances))


def position_statistics(
  maps: Float[np.ndarray, "n y x"], positionwise: bool
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]]:
  """Mean and spread of each position, drawn towards the whole map's when n is small.

  A position's own moments weigh n, the average position's PRIOR_IMAGES (ours). Not
  position-wise: every position has the whole map's moments.
  """
  n, grid = maps.shape[0], maps.shape[1:]
  if not positionwise:
    return np.full(grid, maps.mean()), np.full(grid, maps.std() + 1e-12)
  own = n / (n + PRIOR_IMAGES)
  mean = own * maps.mean(axis=0) + (1 - own) * maps.mean()
  within = maps.var(axis=0, ddof=1)
  return mean, np.sqrt(own * within + (1 - own) * within.mean()) + 1e-12


def fused_map(
  config, calibration: Calibration, raw: RawScores
) -> Float[np.ndarray, "n y x"]:
  """The calibrated map: the mean over modules of the mean of each module's maps.

  Each source is scaled position by position, then by its quantiles to
  0.1 (m - low) / (high - low), as EfficientAD does.
  """
  logical, structural = [], []
  for source, maps in raw.maps.items():
    offset = smooth(maps, config.smoothing) - calibration.mean[source]
    low, high = calibration.quantiles[source]
    scaled = 0.1 * (offset / calibration.spread[source] - low) / max(high - low, 1e-12)
    (structural if source == STRUCTURAL else logical).append(scaled)
  modules = [np.mean(each, axis=0) for each in (logical, structural) if each]
  return np.mean(modules, axis=0)


def image_score(
  config, calibration: Calibration, raw: RawScores
) -> Float[np.ndarray, " n"]:
  """The fused map's peak plus the residual's distance, each in validation spreads.

  # Differs from the paper: the second term. The peak of a map cannot count; set
  config.scoring.global_weight to 0 for the peak alone.
  """
  mean, spread = calibration.peak
  score = (peak(config, fused_map(config, calibration, raw)) - mean) / spread
  if config.global_weight:
    mean, spread = calibration.distance
    far = (mahalanobis(calibration.residual, raw.pooled) - mean) / spread
    score = score + config.global_weight * far
  return score


def peak(config, maps: Float[np.ndarray, "n y x"]) -> Float[np.ndarray, " n"]:
  """Each map's maximum, or the mean of its highest 1 % of positions."""
  flat = np.sort(maps.reshape(len(maps), -1), axis=1)
  top = 1 if config.image == "max" else max(1, flat.shape[1] // 100)
  return flat[:, -top:].mean(axis=1)


def fit_gaussian(rows: Float[np.ndarray, "m s"]) -> Gaussian:
  """The rows' Gaussian, Ledoit-Wolf shrunk on standardised columns, in float64.

  Ledoit and Wolf 2004, section 3.3: shrinkage towards the mean variance by the
  estimated ratio of the sample covariance's error to its dispersion.
  """
  rows = np.asarray(rows, np.float64)
  centre, scale = rows.mean(axis=0), rows.std(axis=0)
  scale = np.where(scale > 1e-9 * scale.max(initial=1e-30), scale, np.inf)
  unit = (rows - centre) / scale
  m, s = unit.shape
  gram = unit @ unit.T / m
  mu = np.trace(gram) / s
  dispersion = np.square(gram).sum() - s * mu**2
  error = (m * np.square(np.diag(gram)).sum() - np.square(gram).sum()) / m
  shrink = min(1.0, max(0.0, error / dispersion)) if dispersion > 0 else 1.0
  _, singular, basis = np.linalg.svd(unit, full_matrices=False)
  floor = max(shrink * mu, 1e-6)
  along = (1 - shrink) * np.square(singular) / m + floor
  return Gaussian(centre, scale, basis, 1 / along, float(1 / floor))


def mahalanobis(
  gaussian: Gaussian, rows: Float[np.ndarray, "n s"]
) -> Float[np.ndarray, " n"]:
  """Each row's distance from the centre, in standard deviations."""
  unit = (np.asarray(rows, np.float64) - gaussian.centre) / gaussian.scale
  inner = np.einsum("ns,rs->nr", unit, gaussian.basis)
  across = np.maximum(np.square(unit).sum(axis=1) - np.square(inner).sum(axis=1), 0)
  along = np.einsum("nr,r->n", np.square(inner), gaussian.precision)
  return np.sqrt(along + gaussian.rest * across)


def save(path: pathlib.Path, scales: Mapping[str, Calibration]) -> None:
  """Writes the categories' calibrations as one .npz of named arrays."""
  flat = {}
  for category, each in scales.items():
    nested = each._asdict() | {"residual": each.residual._asdict()}
    for name, leaf in traverse_util.flatten_dict(nested, sep=":").items():
      flat[f"{category}:{name}"] = leaf
  buffer = io.BytesIO()
  np.savez(buffer, **flat)
  files.write_bytes(path, buffer.getvalue())


def load(path: pathlib.Path) -> dict[str, Calibration]:
  """The calibrations that `save` wrote, by category."""
  with np.load(path, allow_pickle=False) as stored:
    flat = {tuple(name.split(":")): stored[name] for name in stored.files}
  scales = {}
  for category, nested in traverse_util.unflatten_dict(flat).items():
    residual = nested.pop("residual")
    rest = float(residual.pop("rest"))
    scales[category] = Calibration(residual=Gaussian(**residual, rest=rest), **nested)
  return scales


def _moments(values: Float[np.ndarray, " n"]) -> Float[np.ndarray, "2"]:
  return np.array([values.mean(), values.std(ddof=1) + 1e-12])
