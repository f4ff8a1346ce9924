"""What two photographs of a scene agree on, and what they tell apart (ours).

At each cell, VICReg (Bardes et al., 2022): both photographs give the same features, and
each feature varies over the scenes without the others. Of the whole image, InfoNCE (van
den Oord et al., 2018): which of a scene's variants a photograph shows, found by another
photograph of it; so a change of one object shows, and one of light or pose does not.
"""

from collections.abc import Mapping

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CELLS = 16  # along a side at most; of finer levels, every second cell or fewer is read
TEMPERATURE = 0.1
MOMENTS = (jnp.mean, jnp.std)  # of each channel over the image

Views = dict[int, tuple[Float[Array, "b _ _ c"], Float[Array, "b e"]]]


class Maps(nn.Module):
  """Linear maps per level: of its cells, and of its channels' mean and spread."""

  cell: int = 256
  whole: int = 128

  @nn.compact
  def __call__(self, levels: Mapping[int, Float[Array, "b _ _ _"]]) -> Views:
    found = {}
    for level, feats in levels.items():
      step = -(-feats.shape[1] // CELLS)
      pooled = [moment(feats, axis=(1, 2)) for moment in MOMENTS]
      found[level] = (
        self._map(f"cell{level}", self.cell)(feats[:, ::step, ::step]),
        self._map(f"whole{level}", self.whole)(jnp.concatenate(pooled, axis=-1)),
      )
    return found

  @staticmethod
  def _map(name: str, width: int) -> nn.Dense:
    return nn.Dense(width, use_bias=False, name=name)


def terms(views: Views, variants: int) -> dict[str, Float[Array, ""]]:
  """The loss terms by name: each level's "invariance", "variance", and so on.

  Args:
    views: what Maps give of images in the order of scenes.draw: the first half are
      photographs of the scenes of the second half, and the variants of a layout follow
      each other.
    variants: how many of them there are of each layout.
  """
  found = {}
  for level, (cells, whole) in views.items():
    one, other = jnp.split(cells.reshape(-1, cells.shape[-1]), 2)
    found[f"invariance/f{level}"] = jnp.mean(jnp.square(one - other))
    spreads = [decorrelation(one), decorrelation(other)]
    found[f"variance/f{level}"] = (spreads[0][0] + spreads[1][0]) / 2
    found[f"covariance/f{level}"] = (spreads[0][1] + spreads[1][1]) / 2
    found[f"which/f{level}"] = retrieval(whole, variants)
  return found


def decorrelation(
  feats: Float[Array, "n d"],
) -> tuple[Float[Array, ""], Float[Array, ""]]:
  """VICReg's variance and covariance terms, of standard deviations below 1."""
  rows, width = feats.shape
  centred = feats - feats.mean(axis=0, keepdims=True)
  covariance = jnp.einsum("nd,nc->dc", centred, centred) / rows
  own = jnp.diag(covariance)
  short = jnp.mean(jax.nn.relu(1 - jnp.sqrt(own + 1e-4)))
  return short, (jnp.sum(jnp.square(covariance)) - jnp.sum(jnp.square(own))) / width


def retrieval(whole: Float[Array, "b e"], variants: int) -> Float[Array, ""]:
  """The cross-entropy in nats of finding a variant among its layout's, both ways.

  What the variants of a layout have in common is taken out first; then the cosine of
  two photographs, over TEMPERATURE, is the logit.
  """
  groups = whole.reshape(2, -1, variants, whole.shape[-1])
  groups -= groups.mean(axis=(0, 2), keepdims=True)
  groups /= jnp.sqrt(jnp.sum(jnp.square(groups), axis=-1, keepdims=True) + 1e-6)
  logits = jnp.einsum("lve,lwe->lvw", *groups) / TEMPERATURE
  both = (jax.nn.log_softmax(logits, axis) for axis in (1, 2))
  right = [jnp.mean(jnp.diagonal(each, axis1=1, axis2=2)) for each in both]
  return -(right[0] + right[1]) / 2
