"""The frozen encoder: a ResNet (levels f1..f5, normalisation folded away) or a ViT."""

from typing import Any

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from nps_jax import geometry
from nps_jax.models import vit

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's training images, red green blue
STD = (0.229, 0.224, 0.225)
DEEPEST = 5  # of a ResNet's levels


def build(name: str, deepest: int, dtype: Any = jnp.float32) -> nn.Module:
  """The encoder of that name: images -> its levels 1..deepest, by number."""
  kind = geometry.encoder(name)
  if isinstance(kind, geometry.ViT):
    return vit.ViT(kind, deepest, dtype)
  return Encoder(name, deepest, dtype)


def check_level(name: str, deepest: int) -> None:
  """Raises ValueError unless the encoder, which there must be, has this level."""
  kind = geometry.encoder(name)
  if isinstance(kind, geometry.ViT):
    vit.check_level(kind, deepest)
  else:
    plans(name, deepest)


def normalise(images: UInt8[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
  """The images as float32 with ImageNet's mean and standard deviation taken out."""
  mean, std = jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32)
  scaled = images.astype(jnp.float32) / 255
  return (scaled - mean[None, None, None, :]) / std[None, None, None, :]


def _conv(width: int, kernel: int, strides: int, dtype: Any, name: str) -> nn.Conv:
  """A convolution padded as in PyTorch: alike on both sides, whatever the stride."""
  pad = kernel // 2
  return nn.Conv(
    features=width,
    kernel_size=(kernel, kernel),
    strides=strides,
    padding=((pad, pad), (pad, pad)),
    dtype=dtype,
    name=name,
  )


class Block(nn.Module):
  """Convolutions with ReLU between them, around a shortcut."""

  plan: tuple[tuple[int, int, int], ...]  # channels, kernel, stride of each
  dtype: Any

  @nn.compact
  def __call__(self, feats: Float[Array, "b h w d"]) -> Float[Array, "b y x c"]:
    inner = feats
    for index, (channels, kernel, strides) in enumerate(self.plan, start=1):
      inner = nn.relu(inner) if index > 1 else inner
      inner = _conv(channels, kernel, strides, self.dtype, f"conv{index}")(inner)
    if feats.shape != inner.shape:
      strides = max(strides for _, _, strides in self.plan)
      feats = _conv(inner.shape[-1], 1, strides, self.dtype, "shortcut")(feats)
    return nn.relu(feats + inner)


class Encoder(nn.Module):
  """A ResNet as torchvision builds it: the stride sits in a block's first 3x3.

  It is frozen, so there is no batch normalisation left: `weights.load` folds its
  running statistics into the kernels and biases that this one has.
  """

  kind: str  # a ResNet of geometry.ENCODERS; `name` belongs to flax
  deepest: int  # nothing beyond this level is computed or has parameters
  dtype: Any = jnp.float32  # of the arithmetic; parameters and results are float32

  @nn.compact
  def __call__(
    self, images: Float[Array, "b h w 3"]
  ) -> dict[int, Float[Array, "b _ _ _"]]:
    """f1..f_deepest by level; f1 is the stem after its ReLU, before the max pooling.

    Raises:
      ValueError: the name, the level or the image's size is not among the allowed.
    """
    layers = plans(self.kind, self.deepest)
    check_size(images.shape[1], images.shape[2])
    feats = images.astype(self.dtype)
    feats = nn.relu(_conv(64, 7, 2, self.dtype, "stem")(feats))
    levels = {1: feats}
    for level, blocks in layers.items():
      if level == 2:
        feats = nn.max_pool(feats, (3, 3), (2, 2), ((1, 1), (1, 1)))
      for index, plan in enumerate(blocks):
        feats = Block(plan, self.dtype, name=f"layer{level - 1}_{index}")(feats)
      levels[level] = feats
    return {level: feats.astype(jnp.float32) for level, feats in levels.items()}


def plans(name: str, deepest: int) -> dict[int, list[tuple[tuple[int, int, int], ...]]]:
  """The blocks of a ResNet's levels 2..deepest, each as its convolutions' shapes.

  Raises:
    ValueError: the name is unknown, or the level is outside 1..5.
  """
  layout = geometry.encoder(name)
  if not 1 <= deepest <= DEEPEST:
    raise ValueError(
      f"An encoder's deepest level is {deepest}; expected 1 (the stem) to {DEEPEST} "
      "(layer4). See config.encoder.deepest and config.encoder.levels."
    )
  levels = {}
  for level in range(2, deepest + 1):
    width, inner = layout.widths[level], layout.inner * 2 ** (level - 2)
    levels[level] = blocks = []
    for index in range(layout.depths[level - 2]):
      strides = 2 if index == 0 and level > 2 else 1
      if layout.bottleneck:
        blocks.append(((inner, 1, 1), (inner, 3, strides), (width, 1, 1)))
      else:
        blocks.append(((inner, 3, strides), (width, 3, 1)))
  return levels


def check_size(height: int, width: int) -> None:
  """Raises ValueError unless every level has whole positions."""
  multiple = geometry.ResNet.multiple
  if height % multiple or width % multiple or not height or not width:
    raise ValueError(
      f"Images of {height} x {width} pixels; the encoder takes sides that are "
      f"multiples of {multiple}. Change config.image_size."
    )
