"""One function from decoded images to what a run says of them, for any batch."""

from collections.abc import Callable
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8
import numpy as np

from nps_jax import config as settings
from nps_jax import inference
from nps_jax import scoring
from nps_jax.exporting import scores
from nps_jax.models import counts
from nps_jax.models import memory as memories

QUERIES = 64  # patches of an image that are sought at once
Results = tuple[Float[Array, "b y x"], Float[Array, "b e"]]  # maps, terms of scores


def detect(
  run: inference.Run, category: str
) -> Callable[[UInt8[Array, "b h w 3"]], Results]:
  """The function; the batch may be a symbol, and everything else is constant."""
  config = run.about.config
  calibration = run.calibrations[category]
  priors = calibration.priors
  row = run.about.categories.index(category)
  params, codes = run.variables["params"], run.variables["codes"]

  def answer(images: UInt8[Array, "b h w 3"]) -> Results:
    b = images.shape[0]
    feats = run.model.features(run.frozen["encoder"], images)
    context, valid = jnp.full((b,), row), jnp.ones((b,))
    raw = run.model.raw_scores(params, codes, feats, context, valid, scoring.Priors())
    raw = with_priors(run, raw, feats, priors)
    return tuple(scores.answer(config.scoring, calibration, raw))

  return answer


def with_priors(run, raw, feats, priors: scoring.Priors) -> scoring.RawScores:
  """The raw scores with what the category's patches and vocabulary show."""
  maps, pooled, cells = dict(raw.maps), dict(raw.pooled), None
  if priors.memory is not None:
    gaps = nearest(run.model.patches(feats), priors.memory)
    side = settings.image_shape(run.about.config)
    grid = tuple(pixels // scoring.STRIDE for pixels in side)
    maps[scoring.MEMORY] = scoring.on_grid(gaps, grid)
  if priors.vocabulary is not None:
    alone = functools.partial(_belonging, vocabulary=priors.vocabulary)
    belonging = jax.vmap(alone)(feats[run.model.counted])
    pooled[scoring.CODES] = jnp.mean(belonging, axis=(1, 2))
    # Rounded as in the run: without the barrier a cast there and back is left out.
    cells = jax.lax.optimization_barrier(belonging.astype(jnp.float16))
  return scoring.RawScores(maps, pooled, cells)


def _belonging(
  feats: Float[Array, "h w d"], vocabulary: counts.Vocabulary
) -> Float[Array, "h w k"]:
  return counts.belonging(feats[None], vocabulary)[0]


def nearest(
  rows: Float[Array, "b h w d"], memory: memories.Memory
) -> Float[Array, "b h w"]:
  """As `memory.distance`, in operations that other runtimes have."""
  b, h, w, d = rows.shape
  size = next(n for n in range(min(h * w, QUERIES), 0, -1) if h * w % n == 0)
  turns = jnp.swapaxes(rows.reshape(b, -1, size, d), 0, 1)
  groups = memories.GROUPS
  # A group's columns side by side: its minimum is over the last axis.
  coarse = np.asarray(memory.coarse, np.float32)
  coarse = coarse.reshape(len(coarse), -1, groups).swapaxes(1, 2)
  coarse = coarse.reshape(len(coarse), -1)
  patches = jnp.asarray(memory.patches, jnp.float32)
  tile = min(memories.TILE["cpu"], coarse.shape[1])  # what the memory rounds up to
  last_bits = (-(-coarse.shape[1] // tile) * tile // groups - 1).bit_length()

  def gaps(rows: Float[Array, "b n d"]) -> Float[Array, "b n"]:
    along = (
      jnp.matmul(rows, memory.basis, precision="highest") - memory.centre[None, None]
    )
    lengths = jnp.sum(jnp.square(along), axis=-1, keepdims=True)
    keys = jnp.concatenate([along, lengths, jnp.ones_like(lengths)], axis=-1)
    squares = jnp.maximum(jnp.matmul(keys, coarse, precision="highest"), 0)
    squares = squares.reshape(*keys.shape[:2], groups, -1)
    places = jnp.argmin(_truncated(squares, last_bits), axis=-1)
    candidates = places * groups + jnp.arange(groups)[None, None]
    candidates = jnp.minimum(candidates, len(patches) - 1)
    exact = jnp.sum(jnp.square(rows[:, :, None] - patches[candidates]), axis=-1)
    return jnp.sqrt(jnp.min(exact, axis=-1))

  return jnp.swapaxes(jax.lax.map(gaps, turns), 0, 1).reshape(b, h, w)


def _truncated(values: Float[Array, "..."], bits: int) -> Float[Array, "..."]:
  """The values, 0 or more, without the last bits, in which `memory` keeps places.

  Fewer than 3 bits, of a memory of at most 64 patches, stay.
  """
  if bits < 3:
    return values
  kept = 23 - bits  # of float32's
  rounded = jax.lax.reduce_precision(values, 8, kept)
  # Less by a half to three quarters of the last bit: rounded, it is the next below.
  below = jax.lax.reduce_precision(rounded - 0.625 * 2.0**-kept * rounded, 8, kept)
  return jnp.where(rounded > values, below, rounded)
