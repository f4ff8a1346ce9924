"""A loss that draws objects of one kind together and all others apart (ours).

Supervised contrast (Khosla et al., 2020) between the objects of all images: an object's
features are their mean over the cells that it covers. What tells a kit's objects apart,
a form or a surface, must show however they are turned, lit or placed.
"""

from collections.abc import Mapping

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

WIDTH = 128  # of the space in which objects are compared
TEMPERATURE = 0.1
VISIBLE = 20  # pixels that must be seen of an object

Levels = Mapping[int, Float[Array, "b _ _ _"]]


class Maps(nn.Module):
  """One linear map of objects' features for each level."""

  @nn.compact
  def __call__(
    self, means: Mapping[int, Float[Array, "n _"]]
  ) -> dict[int, Float[Array, "n e"]]:
    return {
      level: nn.Dense(WIDTH, use_bias=False, name=f"map{level}")(feats)
      for level, feats in means.items()
    }


def means(
  levels: Levels, item: Int[Array, "b h w"], items: int
) -> tuple[dict[int, Float[Array, "n _"]], Bool[Array, " n"]]:
  """Each level's mean over every item of every image; and which items are visible.

  Cells count by the share that the item has of them.

  Args:
    item: the uppermost at each pixel, 0..items-1.
  """
  share = jax.nn.one_hot(item, items)
  by_level = {}
  for level, feats in levels.items():
    cell = (2**level, 2**level)
    cell_share = nn.avg_pool(share, window_shape=cell, strides=cell)
    total = jnp.einsum("bhwi,bhwc->bic", cell_share, feats)
    mean = total / (cell_share.sum(axis=(1, 2))[..., None] + 1e-6)
    by_level[level] = mean.reshape(-1, mean.shape[-1])
  visible = share.sum(axis=(1, 2)) > VISIBLE
  return by_level, visible.reshape(-1)


def loss(
  rows: Float[Array, "n e"], kind: Int[Array, " n"], visible: Bool[Array, " n"]
) -> Float[Array, ""]:
  """The mean cross-entropy in nats of finding the objects of an object's own kind.

  Rows are compared by the cosine, over TEMPERATURE, of what is left when their mean is
  taken out. Objects without another of their kind only stand for what is different.
  """
  centre = (rows * visible[:, None]).sum(axis=0) / visible.sum()
  rows -= centre[None]
  rows /= jnp.sqrt(jnp.sum(jnp.square(rows), axis=1, keepdims=True) + 1e-6)
  compared = ~jnp.eye(len(rows), dtype=bool) & visible[None, :]
  logits = jnp.where(compared, rows @ rows.T / TEMPERATURE, -1e9)
  same = compared & (kind[:, None] == kind[None, :])
  count = same.sum(axis=1)
  likelihood = jnp.where(same, jax.nn.log_softmax(logits, axis=1), 0).sum(axis=1)
  mean = likelihood / jnp.maximum(count, 1)
  counted = visible & (count > 0)
  return -jnp.sum(mean * counted) / jnp.maximum(counted.sum(), 1)
