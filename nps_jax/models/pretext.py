"""What the encoder learns to say of drawn scenes: what is where, of what (ours)."""

from collections.abc import Mapping

from flax import linen as nn
from flax import traverse_util
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from nps_jax.data import forms
from nps_jax.data import scenes
from nps_jax.data import surfaces

Tree = dict
LAST = "conv2"  # of a block of two convolutions; it starts weak
WEAK = 0.2


class Heads(nn.Module):
  """One linear map per level: at each cell the shares of shapes, textures; a colour."""

  @nn.compact
  def __call__(
    self, levels: Mapping[int, Float[Array, "b _ _ _"]]
  ) -> dict[int, tuple[Float[Array, "b _ _ _"], ...]]:
    """For each level the logits of shapes and of textures, and the colour in 0..1."""
    shapes, textures = len(forms.SHAPES), len(surfaces.TEXTURES)
    found = {}
    for level, feats in levels.items():
      said = nn.Dense(shapes + textures + 3, name=f"level{level}")(feats)
      found[level] = tuple(jnp.split(said, (shapes, shapes + textures), axis=-1))
    return found


def terms(
  said: Mapping[int, tuple[Float[Array, "b _ _ _"], ...]], truth: scenes.Scene
) -> dict[str, Float[Array, ""]]:
  """The loss terms by name: each level's "shape", "texture" and "colour".

  Cross-entropy in nats against the shares of the cell's pixels, and the mean absolute
  difference from their mean colour.

  Args:
    said: what Heads say.
    truth: scenes with a leading axis.
  """
  shape = jax.nn.one_hot(truth.shape, len(forms.SHAPES))
  texture = jax.nn.one_hot(truth.texture, len(surfaces.TEXTURES))
  found = {}
  for level, (shapes, textures, colour) in said.items():
    cell = (2**level, 2**level)
    means = (nn.avg_pool(each, cell, cell) for each in (shape, texture, truth.colour))
    share, made_of, mean = means
    found[f"shape/f{level}"] = _cross_entropy(share, shapes)
    found[f"texture/f{level}"] = _cross_entropy(made_of, textures)
    found[f"colour/f{level}"] = jnp.mean(jnp.abs(mean - colour))
  return found


def _cross_entropy(
  shares: Float[Array, "b h w k"], logits: Float[Array, "b h w k"]
) -> Float[Array, ""]:
  return -jnp.mean(jnp.sum(shares * jax.nn.log_softmax(logits), axis=-1))


def with_gains(params: Tree) -> Tree:
  """An encoder's parameters with a gain of each channel, which `standardised` reads."""
  flat = traverse_util.flatten_dict(params)
  for path, leaf in list(flat.items()):
    if path[-1] == "kernel":
      gain = WEAK if path[-2] == LAST else 1.0
      flat[(*path[:-1], "gain")] = jnp.full(leaf.shape[-1], gain, leaf.dtype)
  return traverse_util.unflatten_dict(flat)


def standardised(params: Tree) -> Tree:
  """The encoder's parameters: kernels of mean 0 and a set size, channel by channel.

  It takes the place of batch normalisation in the training, as scaled weight
  standardisation does in normaliser-free networks (Brock et al., 2021); the encoder
  itself needs no normalisation either way.
  """
  flat, found = traverse_util.flatten_dict(params), {}
  for path, leaf in flat.items():
    if path[-1] == "kernel":
      centred = leaf - leaf.mean(axis=(0, 1, 2), keepdims=True)
      size = centred.std(axis=(0, 1, 2), keepdims=True)
      size *= np.sqrt(np.prod(leaf.shape[:3]) / 2)
      gain = flat[(*path[:-1], "gain")][None, None, None]
      found[path] = gain * centred / (size + 1e-4)
    elif path[-1] == "bias":
      found[path] = leaf
  return traverse_util.unflatten_dict(found)
