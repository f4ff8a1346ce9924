"""Batch normalisation while the encoder is trained; it is folded away afterwards.

The encoder has none of its own. Trained without, its channels fall silent; with it each
one keeps a mean and a spread of its own over the batch (Ioffe and Szegedy, 2015).
"""

from collections.abc import Mapping

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped
import numpy as np

from nps_jax.models import encoder

Tree = dict
Path = tuple[str, ...]
Moments = dict[Path, tuple[Float[Array, " c"], Float[Array, " c"]]]  # mean, variance
Gains = Mapping[Path, Float[np.ndarray, " c"]]
SMALL = 1e-5  # added to a variance


def apply(
  model: encoder.Encoder, params: Tree, images: Float[Array, "b h w 3"]
) -> tuple[dict[int, Float[Array, "b _ _ _"]], Moments]:
  """The levels, and the moments of each convolution before it is normalised.

  Args:
    params: the encoder's, with a "gain" of each channel beside kernel and bias; the
      bias is added last. A convolution without gain, and a channel whose gain is 0, is
      left as it is.
  """
  moments = {}

  def normalise(call, args, kwargs, context):
    output = call(*args, **kwargs)
    module = context.module
    if not isinstance(module, nn.Conv) or context.method_name != "__call__":
      return output
    conv = params
    for name in module.path:
      conv = conv[name]
    mean, variance = output.mean(axis=(0, 1, 2)), output.var(axis=(0, 1, 2))
    moments[module.path] = (mean - conv["bias"], variance)
    if "gain" not in conv:
      return output
    scale, offset = _scale(conv, moments[module.path])
    return (output - _as_map(conv["bias"])) * _as_map(scale) + _as_map(offset)

  with nn.intercept_methods(normalise):
    return model.apply({"params": params}, images), moments


def _scale(conv: Tree, moments) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
  """What a convolution's channels, without bias, are multiplied by; what is added."""
  mean, variance = moments
  as_is = conv["gain"] == 0
  scale = jnp.where(as_is, 1, conv["gain"] / jnp.sqrt(variance + SMALL))
  return scale, conv["bias"] - jnp.where(as_is, 0, mean * scale)


def _as_map(channels: Shaped[Array, " c"]) -> Shaped[Array, "1 1 1 c"]:
  return channels[None, None, None, :]


def with_gains(params: Tree, moments: Moments, gains: Gains) -> Tree:
  """Parameters with gains, to be trained.

  A convolution that has none here gets those with which it computes what it did.

  Args:
    moments: of the convolutions without normalisation.
  """
  flat = traverse_util.flatten_dict(jax.tree.map(jnp.asarray, params))
  for path, (mean, variance) in moments.items():
    if path in gains:
      flat[(*path, "gain")] = jnp.asarray(gains[path])
    else:
      flat[(*path, "gain")] = jnp.sqrt(variance + SMALL)
      flat[(*path, "bias")] = flat[(*path, "bias")] + mean
  return traverse_util.unflatten_dict(flat)


def learned_change(params: Tree, change: Tree) -> Tree:
  """The change of parameters with gains, 0 for all of a channel whose gain is 0."""
  flat = traverse_util.flatten_dict(params)
  changes = {}
  for path, leaf in traverse_util.flatten_dict(change).items():
    learns = flat[(*path[:-1], "gain")] != 0
    changes[path] = leaf * (_as_map(learns) if path[-1] == "kernel" else learns)
  return traverse_util.unflatten_dict(changes)


def fold(params: Tree, moments: Mapping) -> Tree:
  """The encoder's own parameters, which normalise by those moments."""
  flat, folded = traverse_util.flatten_dict(params), {}
  for path, mean_and_variance in moments.items():
    conv = {name: flat[(*path, name)] for name in ("kernel", "bias", "gain")}
    scale, folded[(*path, "bias")] = _scale(conv, mean_and_variance)
    folded[(*path, "kernel")] = conv["kernel"] * _as_map(scale)
  return traverse_util.unflatten_dict(folded)


def scaled(params: Tree, level: int, factor: float) -> Tree:
  """The encoder whose deepest level's features are so many times as large.

  Every ReLU lets a positive factor through.

  Args:
    params: without gains.
    level: the deepest, 3..5; level 2 begins without a shortcut of its own.
  """
  flat, layer = traverse_util.flatten_dict(params), f"layer{level - 1}_"
  for path in flat:
    block, conv = path[0], path[-2]
    deepest, first = block.startswith(layer), block.endswith("_0")
    if deepest and conv != "conv1":
      flat[path] = flat[path] * factor
    elif deepest and not first and path[-1] == "kernel":
      flat[path] = flat[path] / factor
  return traverse_util.unflatten_dict(flat)
