"""A vision transformer, frozen: DINOv2's, with or without registers."""

import math
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
import numpy as np

from nps_jax import geometry

EPS = 1e-6  # of its normalisations


class ViT(nn.Module):
  """Blocks of attention and a perceptron over an image's patches (DINOv2, 2023).

  A level is a block's patches under the final normalisation, as transformers'
  Dinov2Backbone and the authors' get_intermediate_layers(norm=True) give them.
  """

  kind: geometry.ViT
  deepest: int  # no block beyond this one is computed or has parameters
  dtype: Any = jnp.float32  # of the arithmetic; parameters and results are float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "b h w 3"]
  ) -> dict[int, Float[Array, "b _ _ _"]]:
    """Blocks 1..deepest by number.

    Raises:
      ValueError: the block or the image's size is not among the allowed.
    """
    check_level(self.kind, self.deepest)
    check_size(self.kind, *images.shape[1:3])
    patches = self._embedded(images.astype(self.dtype))
    b, rows, columns, width = patches.shape
    places = self._places((rows, columns)).astype(self.dtype)
    tokens = jnp.concatenate(
      [self._tokens("cls", 1, b), patches.reshape(b, rows * columns, width)], axis=1
    )
    tokens += places[None]
    if self.kind.registers:  # they have no places
      registers = self._tokens("registers", self.kind.registers, b)
      tokens = jnp.concatenate([tokens[:, :1], registers, tokens[:, 1:]], axis=1)
    norm, levels = normalisation(self.dtype, "norm"), {}
    for block in range(1, self.deepest + 1):
      tokens = Block(self.kind.heads, self.dtype, name=f"block{block}")(tokens)
      own = norm(tokens)[:, 1 + self.kind.registers :]
      levels[block] = own.reshape(b, rows, columns, width).astype(jnp.float32)
    return levels

  def _embedded(self, images: Float[Array, "b h w 3"]) -> Float[Array, "b y x d"]:
    """Each patch's embedding, from its pixels alone."""
    patch = (self.kind.patch, self.kind.patch)
    return nn.Conv(
      self.kind.width,
      patch,
      strides=patch,
      padding="VALID",
      dtype=self.dtype,
      name="patch",
    )(images)

  def _tokens(self, name: str, count: int, b: int) -> Float[Array, "b n d"]:
    """Learned tokens, the same before every image."""
    shape = (1, count, self.kind.width)
    tokens = self.param(name, nn.initializers.normal(0.02), shape)
    return jnp.broadcast_to(tokens, (b, *shape[1:])).astype(self.dtype)

  def _places(self, grid: geometry.Grid) -> Float[Array, "n d"]:
    """What tells the class token's place, and the patches' on this grid."""
    side, width = self.kind.trained, self.kind.width
    shape = (1, 1 + side * side, width)
    table = jnp.asarray(self.param("places", nn.initializers.normal(0.02), shape))[0]
    square = table[1:].reshape(side, side, width)
    places = resized(square, grid, smooth=self.kind.registers > 0)
    return jnp.concatenate([table[:1], places.reshape(-1, width)])


class Block(nn.Module):
  """Attention, then a perceptron of two layers, each beside its input (pre-norm)."""

  heads: int
  dtype: Any

  @nn.compact
  def __call__(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    width = tokens.shape[-1]
    inner = self._attention(normalisation(self.dtype, "norm1")(tokens))
    tokens += self._scale("scale1", width) * inner
    inner = self._dense(4 * width, "widen")(normalisation(self.dtype, "norm2")(tokens))
    inner = self._dense(width, "narrow")(nn.gelu(inner, approximate=False))
    return tokens + self._scale("scale2", width) * inner

  def _attention(self, tokens: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
    b, n, width = tokens.shape
    queries, keys, values = (
      self._dense(width, name)(tokens).reshape(b, n, self.heads, -1)
      for name in ("query", "key", "value")
    )
    closeness = jnp.einsum("bnhd,bmhd->bhnm", queries, keys)
    closeness = closeness.astype(jnp.float32) / math.sqrt(queries.shape[-1])
    weights = jax.nn.softmax(closeness, axis=-1).astype(self.dtype)
    attended = jnp.einsum("bhnm,bmhd->bnhd", weights, values)
    return self._dense(width, "out")(attended.reshape(b, n, width))

  def _dense(self, width: int, name: str) -> nn.Dense:
    return nn.Dense(width, dtype=self.dtype, name=name)

  def _scale(self, name: str, width: int) -> Float[Array, "1 1 d"]:
    """LayerScale: each channel's factor of what is added to it."""
    scale = self.param(name, nn.initializers.ones, (width,))
    return scale[None, None].astype(self.dtype)


def normalisation(dtype: Any, name: str) -> nn.LayerNorm:
  """Of each token over its channels; the variance is not a difference of squares."""
  return nn.LayerNorm(epsilon=EPS, dtype=dtype, use_fast_variance=False, name=name)


def resized(
  places: Float[Array, "r c d"], grid: geometry.Grid, smooth: bool
) -> Float[Array, "y x d"]:
  """The table of places at another grid, bicubic and in float32, as in transformers.

  Args:
    smooth: as the encoders with registers have it, see `bicubic`.
  """
  down, right = (
    jnp.asarray(bicubic(source, target, smooth))
    for source, target in zip(places.shape[:2], grid, strict=True)
  )
  return jnp.einsum("yr,xc,rcd->yxd", down, right, places, precision="highest")


def bicubic(source: int, target: int, smooth: bool) -> Float[np.ndarray, "t s"]:
  """What each of `target` cells takes of each of `source` cells, by cubic convolution.

  PyTorch's bicubic interpolation without aligned corners. Plain, it is of the parameter
  -0.75 and repeats the border; `smooth` (its antialias), it is of -0.5, leaves out what
  is beyond the border, and is as wide as a target cell where these are the wider ones.
  """
  step = source / target
  centres = (np.arange(target) + 0.5) * step - 0.5
  if smooth:
    gaps = (np.arange(source)[None] - centres[:, None]) / max(step, 1)
    weights = _cubic(gaps, -0.5)
    return np.float32(weights / weights.sum(axis=1, keepdims=True))
  weights = np.zeros((target, source))
  first = np.floor(centres).astype(int)
  for offset in range(-1, 3):
    at = first + offset
    taken = _cubic(at - centres, -0.75)
    np.add.at(weights, (np.arange(target), np.clip(at, 0, source - 1)), taken)
  return np.float32(weights)


def _cubic(gaps: Float[np.ndarray, "*n"], a: float) -> Float[np.ndarray, "*n"]:
  """Keys's kernel of cubic convolution (1981), with his parameter."""
  gaps = np.abs(gaps)
  near = ((a + 2) * gaps - (a + 3)) * gaps**2 + 1
  far = a * (((gaps - 5) * gaps + 8) * gaps - 4)
  return np.where(gaps <= 1, near, np.where(gaps < 2, far, 0))


def check_level(kind: geometry.ViT, deepest: int) -> None:
  """Raises ValueError unless there is such a block."""
  if not 1 <= deepest <= kind.depth:
    raise ValueError(
      f"An encoder's deepest level is {deepest}; expected 1 (its first block) to "
      f"{kind.depth}. See config.encoder.deepest and config.encoder.levels."
    )


def check_size(kind: geometry.ViT, height: int, width: int) -> None:
  """Raises ValueError unless patches fill the image."""
  if height % kind.patch or width % kind.patch or not height or not width:
    raise ValueError(
      f"Images of {height} x {width} pixels; the encoder takes sides that are "
      f"multiples of {kind.patch}. Change config.image_size."
    )
