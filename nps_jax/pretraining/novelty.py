"""A loss that sets new places farther from normal patches than normal ones (ours).

The training meets what memories of patches meet later: the normal photographs of a
scene are each other's memory, and the changed ones have a place that is new.
"""

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nps_jax.models import memory

POWER = 4  # of squared distances; by their sum the highest ones stand for an image
STEEP = 2.0  # nats of loss for each of their ratio's logarithm
COVERED = 0.1  # share of a cell that must be new for the cell to count as new
NONE = -1e3  # the logarithm of a distance that is not looked at
SMALL = 1e-6  # the least squared distance


def loss(
  feats: Float[Array, "b h w c"], new: Int[Array, "b y x"], kits: int, changed: int
) -> Float[Array, ""]:
  """How far normal images' farthest patches outdo those of a new place.

  It is the mean over all pairs of a normal and a changed photograph of a scene; changed
  ones in which no cell is new do not count.

  Args:
    feats: a level of kits x photographs, flattened. Each kit's first `changed` ones
      have something new, all others, two or more, are normal.
    new: 1 where a pixel is new, else 0.
  """
  gap = jnp.log(distances(feats, kits, changed))
  cell = (new.shape[1] // feats.shape[1],) * 2
  pixels = new[..., None].astype(jnp.float32)
  share = nn.avg_pool(pixels, window_shape=cell, strides=cell)
  is_new = share.reshape(gap.shape)[:, :changed] > COVERED
  of_new = _highest(jnp.where(is_new, gap[:, :changed], NONE))
  of_normal = _highest(gap[:, changed:])
  ratio = of_normal[:, None, :] - of_new[:, :, None]
  penalty = jax.nn.softplus(STEEP * ratio).mean(axis=-1)
  has_new = is_new.any(axis=-1)
  return jnp.sum(penalty * has_new) / jnp.maximum(has_new.sum(), 1)


def distances(
  feats: Float[Array, "b h w c"], kits: int, changed: int
) -> Float[Array, "k p n"]:
  """Each patch's squared distance to the nearest one of the other normal photographs.

  A patch is the mean of 3 x 3 cells, as the memories hold it.
  """
  patches = memory.patches({0: feats})
  photographs, width = len(feats) // kits, feats.shape[-1]
  rows = patches.reshape(kits, photographs, -1, width)
  own = jnp.eye(photographs, dtype=bool)[:, None, changed:, None]

  def nearest(rows: Float[Array, "p n c"]) -> Float[Array, "p n"]:
    normal = rows[changed:].reshape(-1, width)
    gaps = memory.squared_distances(rows.reshape(-1, width), normal)
    by_photograph = gaps.reshape(*rows.shape[:2], -1, rows.shape[1])
    return jnp.where(own, jnp.inf, by_photograph).min(axis=(2, 3))

  return jnp.maximum(jax.vmap(nearest)(rows), SMALL)


def _highest(gap: Float[Array, "k p n"]) -> Float[Array, "k p"]:
  """A smooth maximum over an image's cells."""
  return jax.nn.logsumexp(POWER * gap, axis=-1) / POWER
