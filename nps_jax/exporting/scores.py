"""From raw evidence to the calibrated map and the score's terms, within a graph.

The twin of `scoring.score` in float32 JAX, for devices that have no float64.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32
import numpy as np
from scipy import ndimage

from nps_jax import gaussian
from nps_jax import scoring


class Answer(NamedTuple):
  """What a graph says of images; 1 is the threshold of maps and scores."""

  map: Float[Array, "b y x"]
  evidence: Float[Array, "b e"]  # a score is their sum


def terms(config, calibration: scoring.Calibration) -> tuple[str, ...]:
  """What each column of the evidence is of."""
  counted = (name for name in config.pooled if name in calibration.gaussians)
  return (scoring.FUSED, *counted)


def sources(config, calibration: scoring.Calibration) -> tuple[str, ...]:
  """The maps that weigh in the fused one."""
  weights = calibration.map_weights.items()
  return tuple(name for name, weight in weights if weight > 0)


def answer(config, calibration: scoring.Calibration, raw: scoring.RawScores) -> Answer:
  """The calibrated maps, and what each of the terms adds to the scores."""
  far = {
    name: _distance(normal, raw.pooled[name])
    for name, normal in calibration.gaussians.items()
  }
  fused = _fused(config, calibration, raw, far)
  told = far | {scoring.FUSED: _peak(config, fused)}
  evidence = [
    _standard(calibration, name, told[name]) for name in terms(config, calibration)
  ]
  return Answer(
    fused / calibration.unit[scoring.MAP],
    jnp.stack(evidence, axis=1) / calibration.unit[scoring.SCORE],
  )


def _fused(
  config,
  calibration: scoring.Calibration,
  raw: scoring.RawScores,
  far: dict[str, Float[Array, " b"]],
) -> Float[Array, "b y x"]:
  """The weighted mean of the scaled maps of those sources that weigh."""
  fused, total = 0.0, sum(calibration.map_weights.values())
  for source in sources(config, calibration):
    low, high = calibration.quantiles[source]
    share = calibration.map_weights[source] / total
    maps = _unscaled(config, calibration, raw, far, source)
    fused += share * 0.1 / max(high - low, 1e-12) * (maps - np.float32(low))
  return fused


def _unscaled(
  config,
  calibration: scoring.Calibration,
  raw: scoring.RawScores,
  far: dict[str, Float[Array, " b"]],
  source: str,
) -> Float[Array, "b y x"]:
  """A source's smoothed map, in spreads of each position."""
  if source == scoring.CODES:
    height = _standard(calibration, source, far[source])[:, None, None]
    return height * _counted_places(config, calibration, raw)
  rare = source == scoring.LAYOUT
  values = _rare_places(calibration, raw) if rare else raw.maps[source]
  gap = _smooth(values, config.smoothing) - _constant(calibration.mean[source])[None]
  return gap / _constant(calibration.spread[source])[None]


def _smooth(maps: Float[Array, "b y x"], sigma: float) -> Float[Array, "b y x"]:
  """The maps under scipy's Gaussian, which mirrors them at their sides."""
  if sigma == 0:
    return maps
  rows, columns = maps.shape[1:]
  cells = sigma * math.sqrt(rows * columns) / 256
  down, across = (
    _constant(ndimage.gaussian_filter1d(np.eye(side), cells, axis=0))
    for side in (rows, columns)
  )
  maps = jnp.einsum("zy,byx->bzx", down, maps, precision="highest")
  return jnp.einsum("byx,wx->byw", maps, across, precision="highest")


def _counted_places(
  config, calibration: scoring.Calibration, raw: scoring.RawScores
) -> Float[Array, "b y x"]:
  """Where codes are of which there is too much, or should be more; peaks at 1."""
  pull = _pull(calibration.gaussians[scoring.CODES], raw.pooled[scoring.CODES])
  surplus = raw.cells.astype(jnp.float32) - _constant(calibration.usual)[None]
  odd = jnp.einsum("bhwk,bk->bhw", surplus, pull, precision="highest")
  places = _smooth(_fine(jnp.maximum(odd, 0), raw), config.smoothing)
  return places / (jnp.max(places, axis=(1, 2), keepdims=True) + 1e-12)


def _rare_places(
  calibration: scoring.Calibration, raw: scoring.RawScores
) -> Float[Array, "b y x"]:
  """The negative logarithm of how usual each position's codes are there."""
  cells, usual = raw.cells.astype(jnp.float32), _constant(calibration.usual)
  shares = jnp.sum(cells * usual[None], axis=-1)
  return _fine(-jnp.log(shares + scoring.RARE), raw)


def _fine(maps: Float[Array, "b h w"], raw: scoring.RawScores) -> Float[Array, "b y x"]:
  """Maps of the counted level on the grid of the raw ones."""
  _, rows, columns = next(iter(raw.maps.values())).shape
  return scoring.on_grid(maps, (rows, columns))


def _standard(
  calibration: scoring.Calibration, source: str, values: Float[Array, " b"]
) -> Float[Array, " b"]:
  """The evidence in spreads of normal images; softly cut below usual, 0 or more."""
  mean, spread = calibration.evidence[source]
  return jnp.logaddexp((values - np.float32(mean)) / np.float32(spread), 0.0)


def _peak(config, maps: Float[Array, "b y x"]) -> Float[Array, " b"]:
  """Each map's maximum, or the mean of its highest 1 % of positions."""
  if config.image != "top1":
    return jnp.max(maps, axis=(1, 2))
  count = maps.shape[1] * maps.shape[2]
  top, _ = jax.lax.top_k(maps.reshape(-1, count), max(1, count // 100))
  return jnp.mean(top, axis=1)


def _unit(normal: gaussian.Gaussian, rows: Float[Array, "b s"]) -> Float[Array, "b s"]:
  """The rows from the centre, scaled; the centre in two parts, for its last digits."""
  centre = _constant(normal.centre)
  rest = _constant(normal.centre - np.float64(centre))
  return (rows - centre[None] - rest[None]) * _constant(1 / normal.scale)[None]


def _distance(
  normal: gaussian.Gaussian, rows: Float[Array, "b s"]
) -> Float[Array, " b"]:
  """Each row's distance from the centre, in standard deviations."""
  unit = _unit(normal, rows)
  if len(normal.aim):
    return _length(_product(unit, normal.aim.T))
  inner = _product(unit, normal.basis.T)
  across = unit - _product(inner, normal.basis)  # no difference of large squares
  along = _length(inner * _constant(np.sqrt(normal.precision))[None])
  return jnp.hypot(along, math.sqrt(normal.rest) * _length(across))


def _pull(normal: gaussian.Gaussian, rows: Float[Array, "b s"]) -> Float[Array, "b s"]:
  """What each row's columns add to its squared distance, for a unit of difference."""
  unit = _unit(normal, rows)
  if len(normal.aim):
    return _product(_product(unit, normal.aim.T), normal.aim / normal.scale)
  excess = _product(unit, normal.basis.T * (normal.precision - normal.rest))
  pull = normal.rest * unit + _product(excess, normal.basis)
  return pull * _constant(1 / normal.scale)[None]


def _length(rows: Float[Array, "b s"]) -> Float[Array, " b"]:
  return jnp.sqrt(jnp.sum(jnp.square(rows), axis=1))


def _product(
  rows: Float[Array, "b s"], matrix: Float[np.ndarray, "s t"]
) -> Float[Array, "b t"]:
  return jnp.matmul(rows, _constant(matrix), precision="highest")


def _constant(values: Float[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
  return np.float32(values)
