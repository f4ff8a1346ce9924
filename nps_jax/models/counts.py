"""A vocabulary of normal scenes, and how much of an image each of its codes describes.

Codes of the method's codebooks serve the decoder; these describe an encoder level's own
features, so that what is missing or one too many can be counted (ours).
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from nps_jax import losses
from nps_jax.models import codebook
from nps_jax.models import grids

ROUNDS = 15  # of Lloyd's algorithm
SAMPLE = 60_000  # scenes, at most, that the codes are learned from


class Vocabulary(NamedTuple):
  """Codes, each the mean of the scenes that are nearest to it."""

  codes: Float[np.ndarray | Array, "k d"]
  gap: Float[np.ndarray | Array, ""]  # mean squared distance of scenes to their codes


def scenes(feats: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
  """Features at length 1, each the mean of the 3 x 3 cells around it.

  At the border the window holds fewer cells, and the mean is over these.
  """
  around = ((0, 0), (1, 1), (1, 1), (0, 0))
  ones = jnp.ones((1, *feats.shape[1:3], 1))
  cells = grids.window_sum(jnp.pad(ones, around))
  return grids.window_sum(jnp.pad(losses.unit(feats), around)) / cells


def learn(rows: Float[np.ndarray, "n d"], count: int, seed: int) -> Vocabulary:
  """`count` codes of the scenes by k-means, from k-means++ seeds; fewer of few scenes.

  Arthur and Vassilvitskii 2007: each seed is a scene drawn by its squared distance to
  those before it, so that rare scenes find a code too. A code that no scene is nearest
  to stays where it was.
  """
  rng = np.random.default_rng(seed)
  if len(rows) > SAMPLE:
    rows = rows[rng.choice(len(rows), SAMPLE, replace=False)]
  points = jnp.asarray(rows, jnp.float32)
  chosen, gap = [int(rng.integers(len(rows)))], jnp.full(len(rows), jnp.inf)
  while len(chosen) < count:
    gap = _nearer(gap, points, points[chosen[-1]])
    reach = np.cumsum(np.asarray(gap, np.float64))
    if reach[-1] <= 0:
      break
    drawn = np.searchsorted(reach, rng.random() * reach[-1], side="right")
    chosen.append(int(min(drawn, len(rows) - 1)))
  codes = points[np.array(chosen)]
  for _ in range(ROUNDS):
    codes, mean = _round(codes, points)
  return Vocabulary(np.asarray(codes), np.asarray(mean))


@jax.jit
def _nearer(
  gap: Float[Array, " n"], points: Float[Array, "n d"], code: Float[Array, " d"]
) -> Float[Array, " n"]:
  return jnp.minimum(gap, jnp.sum(jnp.square(points - code[None]), axis=1))


@jax.jit
def _round(
  codes: Float[Array, "k d"], points: Float[Array, "n d"]
) -> tuple[Float[Array, "k d"], Float[Array, ""]]:
  """The means of the points that are nearest to each code; their mean distance."""
  index = codebook.nearest_code(points, codes)
  hits = jax.ops.segment_sum(jnp.ones(len(points)), index, len(codes))
  sums = jax.ops.segment_sum(points, index, len(codes))
  means = jnp.where(hits[:, None] > 0, sums / jnp.maximum(hits, 1)[:, None], codes)
  return means, jnp.mean(jnp.sum(jnp.square(points - codes[index]), axis=1))


def belonging(
  feats: Float[Array, "b h w d"], vocabulary: Vocabulary
) -> Float[Array, "b h w k"]:
  """How far each position belongs to each code; 1 in sum.

  By softmax(- squared distance / usual distance), so that it does not jump where two
  codes are equally near. The mean over positions is the codes' shares of the image.
  """
  soft = functools.partial(_soft, vocabulary=vocabulary)
  return jax.lax.map(soft, scenes(feats))


def _soft(
  image: Float[Array, "h w d"], vocabulary: Vocabulary
) -> Float[Array, "h w k"]:
  codes = vocabulary.codes
  bias = 0.5 * jnp.einsum("kd,kd->k", codes, codes)
  closeness = jnp.einsum("hwd,kd->hwk", image, codes) - bias[None, None]
  return jax.nn.softmax(2 * closeness / jnp.maximum(vocabulary.gap, 1e-6), axis=-1)
