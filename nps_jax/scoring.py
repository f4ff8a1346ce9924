"""From what the modules rebuilt to one calibrated map and score for each image."""

from collections.abc import Mapping
import io
import pathlib
from typing import NamedTuple

from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float16
import numpy as np
from scipy import ndimage
from scipy import special

from nps_jax import gaussian
from nps_jax import losses
from nps_jax.runs import integrity

RECONSTRUCTION, DISCREPANCY = "reconstruction", "discrepancy"  # the logical module's
STRUCTURAL = "structural"  # the structural module's map
MEMORY = "memory"  # begins the names of the maps of the distance to normal patches
STRIDE = 4  # raw maps have one cell for each 4 x 4 pixels of the model's input
COARSE = 3  # first level whose features are pooled: finer ones follow the light
FOLDS = 10  # of the validation images, for what Gaussians say of unknown ones
PRIOR_IMAGES = 40  # weight of the average position in a position's own statistics


class RawScores(NamedTuple):
  """Uncalibrated evidence; every part is on the stride-4 grid."""

  maps: dict[str, Float[Array, "b y x"]]  # by source, such as "reconstruction"
  pooled: dict[str, Float[Array, "b _"]]  # by source: statistics over all positions


class Calibration(NamedTuple):
  """One category's scales, all from its normal images that are not for testing."""

  mean: dict[str, Float[np.ndarray, "y x"]]  # of the raw map, position by position
  spread: dict[str, Float[np.ndarray, "y x"]]
  quantiles: dict[str, Float[np.ndarray, "2"]]  # of the scaled map: low and high
  gaussians: dict[str, gaussian.Gaussian]  # of the pooled statistics
  evidence: dict[str, Float[np.ndarray, "2"]]  # each source's mean and spread
  sides: dict[str, Float[np.ndarray, "2"]]  # likewise of "local" and "global" evidence
  memory: dict[str, Float16[np.ndarray, "k d"]]  # normal patches, by their map's name


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
  return jax.image.resize(gap, (gap.shape[0], *grid), "bilinear")


def pooled_statistics(
  target: Mapping[int, Float[Array, "b _ _ _"]],
  rebuilt: Mapping[int, Float[Array, "b _ _ _"]],
) -> dict[str, Float[Array, "b _"]]:
  """Mean and spread over positions, channel by channel (ours).

  The maximum of a map forgets how much there was, and of what sort; these statistics
  keep it: of the "residual" target - rebuilt, signed and of features at length 1, and
  of the "features" themselves from level 3 on.
  """
  residual = [
    losses.unit(target[level]) - losses.unit(feats) for level, feats in rebuilt.items()
  ]
  coarse = [target[level] for level in rebuilt if level >= COARSE]
  pooled = {"residual": residual} | ({"features": coarse} if coarse else {})
  return {
    name: jnp.concatenate(
      [moment(level, axis=(1, 2)) for level in maps for moment in (jnp.mean, jnp.std)],
      axis=-1,
    )
    for name, maps in pooled.items()
  }


def smooth(
  maps: Float[np.ndarray, "n y x"], sigma: float
) -> Float[np.ndarray, "n y x"]:
  """The maps in float64 under a Gaussian; 0: unchanged.

  Args:
    sigma: its spread in pixels of an image whose sides have 256 of them.
  """
  maps = np.asarray(maps, np.float64)
  if sigma == 0:
    return maps
  cells = [sigma * side / 256 for side in maps.shape[1:]]
  return ndimage.gaussian_filter(maps, (0, *cells))


def fit(
  config, validation: RawScores, normal: Mapping[str, Float[np.ndarray, "m _"]]
) -> Calibration:
  """The scales of one category.

  Args:
    config: the `scoring` section.
    validation: scores of its validation images, all good; at least 2.
    normal: pooled statistics of its normal training images. The Gaussians' many
      dimensions need these and the validation images; what is usual for a normal image
      they say of validation images that they have not been fitted to.

  Raises:
    ValueError: fewer than 2 validation images.
  """
  count = len(next(iter(validation.maps.values())))
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
  gaussians = {
    name: gaussian.fit(np.concatenate([rows, validation.pooled[name]]))
    for name, rows in normal.items()
    if config.global_weight and name in config.pooled
  }
  calibration = Calibration(mean, spread, quantiles, gaussians, {}, {}, {})
  evidence = gather_evidence(config, calibration, validation)
  evidence |= {
    name: gaussian.held_out(normal[name], rows, FOLDS)
    for name, rows in validation.pooled.items()
    if name in gaussians
  }
  calibration = calibration._replace(evidence=_moments(evidence))
  sides = gather_sides(calibration, evidence)
  return calibration._replace(sides=_moments(sides))


def _moments(
  evidence: Mapping[str, Float[np.ndarray, " n"]],
) -> dict[str, Float[np.ndarray, "2"]]:
  return {
    name: np.array([values.mean(), values.std(ddof=1) + 1e-12])
    for name, values in evidence.items()
  }


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


def scaled_maps(
  config, calibration: Calibration, raw: RawScores
) -> dict[str, Float[np.ndarray, "n y x"]]:
  """Each source's map, scaled position by position and then by its quantiles.

  The quantiles' scale is EfficientAD's: 0.1 (m - low) / (high - low).
  """
  scaled_by_source = {}
  for source, maps in raw.maps.items():
    offset = smooth(maps, config.smoothing) - calibration.mean[source]
    low, high = calibration.quantiles[source]
    scaled = offset / calibration.spread[source] - low
    scaled_by_source[source] = 0.1 * scaled / max(high - low, 1e-12)
  return scaled_by_source


def fused_map(
  config, calibration: Calibration, raw: RawScores
) -> Float[np.ndarray, "n y x"]:
  """The calibrated map: the mean over modules of the mean of each module's maps.

  The memories, where there are any, count as a third module.
  """
  modules = {}
  for source, maps in scaled_maps(config, calibration, raw).items():
    known = [name for name in (STRUCTURAL, MEMORY) if source.startswith(name)]
    modules.setdefault("".join(known), []).append(maps)
  return np.mean([np.mean(maps, axis=0) for maps in modules.values()], axis=0)


def gather_evidence(
  config, calibration: Calibration, raw: RawScores
) -> dict[str, Float[np.ndarray, " n"]]:
  """What each source says of each image, on a scale of its own.

  The peak of the fused map or, with config.image "sources", of each map; of the logical
  module's two only the discrepancy, which says what the reconstruction says with less
  noise. Then the distance of the pooled statistics from normal ones.
  """
  if config.image == "sources":
    maps = scaled_maps(config, calibration, raw)
    if DISCREPANCY in maps:
      maps.pop(RECONSTRUCTION, None)
  else:
    maps = {"fused": fused_map(config, calibration, raw)}
  evidence = {source: peak(config, scaled) for source, scaled in maps.items()}
  for name, normal in calibration.gaussians.items():
    evidence[name] = gaussian.distance(normal, raw.pooled[name])
  return evidence


def gather_sides(
  calibration: Calibration, evidence: Mapping[str, Float[np.ndarray, " n"]]
) -> dict[str, Float[np.ndarray, " n"]]:
  """What the maps say together, and what the statistics of whole images do.

  "local" is an odd place, the sum over the maps that show it; "global" is an image
  whose sum is odd though each place is normal: too many, too few, in another ratio. It
  is the soft maximum over statistics, as each counts something else.
  """
  standard = {"local": [], "global": []}
  for source, values in evidence.items():
    mean, spread = calibration.evidence[source]
    side = "global" if source in calibration.gaussians else "local"
    standard[side].append((values - mean) / spread)
  sides = {"local": np.sum(np.logaddexp(0, standard["local"]), axis=0)}
  if standard["global"]:
    sides["global"] = special.logsumexp(standard["global"], axis=0)
  return sides


def image_score(
  config, calibration: Calibration, raw: RawScores
) -> Float[np.ndarray, " n"]:
  """The weighted sum of both sides' evidence, each in validation spreads; 0 or more.

  A side that is calmer than usual adds next to nothing, and takes nothing away: an
  image with a part missing has fewer places that could be odd.

  # Differs from the paper: there the score is the fused map's peak. That peak drowns
  what one source alone sees in the other sources' noise, and it cannot count; set
  config.scoring.image to "max" and global_weight to 0 for the peak alone.
  """
  total = np.zeros(len(next(iter(raw.maps.values()))))
  evidence = gather_evidence(config, calibration, raw)
  for side, values in gather_sides(calibration, evidence).items():
    mean, spread = calibration.sides[side]
    weight = config.global_weight if side == "global" else 1.0
    total += weight * np.logaddexp(0, (values - mean) / spread)
  return total


def peak(config, maps: Float[np.ndarray, "n y x"]) -> Float[np.ndarray, " n"]:
  """Each map's maximum, or the mean of its highest 1 % of positions."""
  flat = np.sort(maps.reshape(len(maps), -1), axis=1)
  top = max(1, flat.shape[1] // 100) if config.image == "top1" else 1
  return flat[:, -top:].mean(axis=1)


def save(path: pathlib.Path, scales: Mapping[str, Calibration]) -> None:
  """Writes the categories' calibrations as one .npz of named arrays, with its sum."""
  flat = {}
  for category, calibration in scales.items():
    nested = calibration._asdict()
    nested["gaussians"] = {
      name: g._asdict() for name, g in calibration.gaussians.items()
    }
    for name, leaf in traverse_util.flatten_dict(nested, sep="/").items():
      flat[f"{category}/{name}"] = leaf
  buffer = io.BytesIO()
  np.savez(buffer, **flat)
  integrity.write(path, buffer.getvalue())


def load(path: pathlib.Path, remedy: str) -> dict[str, Calibration]:
  """The calibrations that `save` wrote, by category.

  Args:
    remedy: what to do where the file is damaged, for the message.

  Raises:
    FileNotFoundError, ValueError: the file or its sum is missing, or one is damaged.
  """
  with np.load(io.BytesIO(integrity.read(path, remedy)), allow_pickle=False) as stored:
    flat = {tuple(name.split("/")): stored[name] for name in stored.files}
  scales = {}
  for category, stored in traverse_util.unflatten_dict(flat).items():
    parts = {"gaussians": {}, "memory": {}} | stored  # empty ones leave nothing there
    parts["gaussians"] = {
      name: gaussian.Gaussian(**{**fields, "rest": float(fields["rest"])})
      for name, fields in parts["gaussians"].items()
    }
    scales[category] = Calibration(**parts)
  return scales
