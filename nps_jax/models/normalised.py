"""Batch normalisation while the encoder is trained; it is folded away afterwards.

The encoder has none of its own. Trained without, its channels fall silent; with it each
one keeps a mean and a spread of its own over the batch (Ioffe and Szegedy, 2015).
"""

from collections.abc import Mapping

from flax import linen as nn
from flax import traverse_util
import jax.numpy as jnp
from jaxtyping import Array, Float

from nps_jax.models import encoder

Tree = dict
Path = tuple[str, ...]
Moments = dict[Path, tuple[Float[Array, " c"], Float[Array, " c"]]]  # mean, variance
SMALL = 1e-5  # added to a variance


def apply(
  model: encoder.Encoder, params: Tree, images: Float[Array, "b h w 3"]
) -> tuple[dict[int, Float[Array, "b _ _ _"]], Moments]:
  """The levels, and what each convolution gave before it was normalised.

  Args:
    params: the encoder's, with a "gain" of each channel beside kernel and bias; the
      bias is added last. A convolution without gain is left as it is.
  """
  moments = {}

  def normalise(call, args, kwargs, context):
    found = call(*args, **kwargs)
    module = context.module
    if not isinstance(module, nn.Conv) or context.method_name != "__call__":
      return found
    held = params
    for part in module.path:
      held = held[part]
    mean, variance = found.mean(axis=(0, 1, 2)), found.var(axis=(0, 1, 2))
    moments[module.path] = (mean - held["bias"], variance)
    if "gain" not in held:
      return found
    scale = held["gain"] / jnp.sqrt(variance + SMALL)
    return found * _wide(scale) + _wide(held["bias"] - mean * scale)

  with nn.intercept_methods(normalise):
    return model.apply({"params": params}, images), moments


def _wide(each: Float[Array, " c"]) -> Float[Array, "1 1 1 c"]:
  return each[None, None, None, :]


def unchanged(params: Tree, moments: Moments) -> Tree:
  """Parameters with gains that compute what the given ones, without any, compute.

  Args:
    moments: of the convolutions without normalisation.
  """
  flat = traverse_util.flatten_dict(params)
  for path, (mean, variance) in moments.items():
    flat[(*path, "gain")] = jnp.sqrt(variance + SMALL)
    flat[(*path, "bias")] = flat[(*path, "bias")] + mean
  return traverse_util.unflatten_dict(flat)


def fold(params: Tree, moments: Mapping) -> Tree:
  """The encoder's own parameters, which normalise by those moments."""
  flat, found = traverse_util.flatten_dict(params), {}
  for path, (mean, variance) in moments.items():
    scale = flat[(*path, "gain")] / jnp.sqrt(variance + SMALL)
    found[(*path, "kernel")] = flat[(*path, "kernel")] * _wide(scale)
    found[(*path, "bias")] = flat[(*path, "bias")] - mean * scale
  return traverse_util.unflatten_dict(found)
