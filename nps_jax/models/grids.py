"""Maps on other grids, and sums over windows, in the forms that XLA runs fast."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nps_jax import geometry

WINDOW = 3  # cells along a side of a window


def resized(
  feats: Float[Array, "b h w d"], grid: geometry.Grid
) -> Float[Array, "b y x d"]:
  """The feature map at another grid, bilinear, as `jax.image.resize` has it.

  From one level of a pyramid to the next the grid doubles; each pair of new positions
  is then two weighted means of neighbours; the general form is a product of matrices
  (ours).
  """
  b, h, w, d = feats.shape
  if tuple(grid) == (2 * h, 2 * w):
    return _doubled(_doubled(feats, 1), 2)
  return jax.image.resize(feats, (b, *grid, d), "bilinear")


def _doubled(feats: Float[Array, "b h w d"], axis: int) -> Float[Array, "b y x d"]:
  """Twice as many positions along one axis, at quarters between those that are."""
  size = feats.shape[axis]
  first = jax.lax.slice_in_dim(feats, 0, 1, axis=axis)
  last = jax.lax.slice_in_dim(feats, size - 1, size, axis=axis)
  rest = jax.lax.slice_in_dim(feats, 0, size - 1, axis=axis)
  before = jnp.concatenate([first, rest], axis)
  rest = jax.lax.slice_in_dim(feats, 1, size, axis=axis)
  after = jnp.concatenate([rest, last], axis)
  pairs = [0.25 * before + 0.75 * feats, 0.75 * feats + 0.25 * after]
  shape = [*feats.shape]
  shape[axis] *= 2
  return jnp.stack(pairs, axis + 1).reshape(shape)


def window_sum(padded: Float[Array, "b h w d"]) -> Float[Array, "b y x d"]:
  """The sum of each window of WINDOW x WINDOW cells that lies inside the map."""
  for axis in (1, 2):
    inside = padded.shape[axis] - WINDOW + 1
    padded = sum(
      jax.lax.slice_in_dim(padded, at, at + inside, axis=axis) for at in range(WINDOW)
    )
  return padded
