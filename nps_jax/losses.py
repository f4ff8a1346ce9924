"""Distances between encoder features and their reconstruction, map by map."""

from collections.abc import Mapping

import jax.numpy as jnp
from jaxtyping import Array, Float

DISTANCES = ("cosine", "mse", "cosine_flat")


def unit(feats: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
  """Each position's feature at length 1; a zero feature stays zero."""
  square = jnp.sum(jnp.square(feats), axis=-1, keepdims=True)
  return feats / jnp.sqrt(jnp.maximum(square, 1e-12))


def distance_map(
  target: Float[Array, "b h w d"], rebuilt: Float[Array, "b h w d"]
) -> Float[Array, "b h w"]:
  """1 - cosine over channels at each position, in 0..2 (RD4AD, equation 1)."""
  return 1 - jnp.einsum("bhwd,bhwd->bhw", unit(target), unit(rebuilt))


def squared_map(
  target: Float[Array, "b h w d"], rebuilt: Float[Array, "b h w d"]
) -> Float[Array, "b h w"]:
  """Squared distance between the target at length 1 and the rebuilt feature."""
  return jnp.sum(jnp.square(unit(target) - rebuilt), axis=-1)


def gap_map(
  target: Float[Array, "b h w d"], rebuilt: Float[Array, "b h w d"], distance: str
) -> Float[Array, "b h w"]:
  """The map of the chosen distance; "cosine_flat" has the map of "cosine"."""
  return (squared_map if distance == "mse" else distance_map)(target, rebuilt)


def feature_gap(
  target: Mapping[int, Float[Array, "b _ _ _"]],
  rebuilt: Mapping[int, Float[Array, "b _ _ _"]],
  distance: str,
) -> dict[int, Float[Array, " b"]]:
  """Each image's distance by level, averaged over positions; the loss is their sum.

  Args:
    target: encoder features by level; pass constants where no gradient is wanted.
    rebuilt: what the decoder made of them, same levels and shapes.
    distance: "cosine", "mse" (target at length 1), or "cosine_flat": one cosine of the
      whole flattened level, as RD4AD's training has it.

  Raises:
    ValueError: the distance is unknown.
  """
  if distance not in DISTANCES:
    raise ValueError(
      f"config.loss.distance is {distance!r}; expected one of {DISTANCES}."
    )
  gaps = {}
  for level, feats in rebuilt.items():
    if distance == "cosine_flat":
      b = feats.shape[0]
      gap = distance_map(target[level].reshape(b, 1, 1, -1), feats.reshape(b, 1, 1, -1))
    else:
      gap = gap_map(target[level], feats, distance)
    gaps[level] = jnp.mean(gap, axis=(1, 2))
  return gaps
