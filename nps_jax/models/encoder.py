"""The frozen encoder: ResNet feature levels f1..f5, batch normalisation folded away."""

from typing import Any, NamedTuple

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

MEAN = (0.485, 0.456, 0.406)  # of ImageNet's training images, red green blue
STD = (0.229, 0.224, 0.225)
MULTIPLE = 32  # image sides are multiples of it: the stride of f5
DEEPEST = 5


class Architecture(NamedTuple):
  """What tells one ResNet from another."""

  depths: tuple[int, int, int, int]  # blocks of layer1..layer4
  inner: int  # channels of the 3x3 convolution in layer1; doubles from layer to layer
  bottleneck: bool  # blocks of 1x1, 3x3, 1x1 that widen; else of two 3x3


ARCHITECTURES = {
  "resnet18": Architecture((2, 2, 2, 2), 64, False),
  "resnet34": Architecture((3, 4, 6, 3), 64, False),
  "resnet50": Architecture((3, 4, 6, 3), 64, True),
  "resnet101": Architecture((3, 4, 23, 3), 64, True),
  "wide_resnet50_2": Architecture((3, 4, 6, 3), 128, True),
  "wide_resnet101_2": Architecture((3, 4, 23, 3), 128, True),
}


def architecture(name: str) -> Architecture:
  """The architecture of that name.

  Raises:
    ValueError: no encoder has this name.
  """
  if name not in ARCHITECTURES:
    raise ValueError(
      f"config.encoder.name is {name!r}; expected one of {', '.join(ARCHITECTURES)}."
    )
  return ARCHITECTURES[name]


def level_widths(name: str) -> dict[int, int]:
  """Channels of f1..f5; ValueError for an unknown name."""
  first = 256 if architecture(name).bottleneck else 64
  return {1: 64} | {level: first * 2 ** (level - 2) for level in range(2, DEEPEST + 1)}


def stride(level: int) -> int:
  """Pixels from one position of the level to the next: 2, 4, 8, 16, 32."""
  return 2**level


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

  kind: str  # a key of ARCHITECTURES; `name` belongs to flax
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
  """The blocks of levels 2..deepest, each as its convolutions' shapes.

  Raises:
    ValueError: the name is unknown, or the level is outside 1..5.
  """
  layout = architecture(name)
  if not 1 <= deepest <= DEEPEST:
    raise ValueError(
      f"An encoder's deepest level is {deepest}; expected 1 (the stem) to {DEEPEST} "
      "(layer4). See config.encoder.deepest and config.encoder.levels."
    )
  levels = {}
  for level in range(2, deepest + 1):
    width, inner = level_widths(name)[level], layout.inner * 2 ** (level - 2)
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
  if height % MULTIPLE or width % MULTIPLE or not height or not width:
    raise ValueError(
      f"Images of {height} x {width} pixels; the encoder takes sides that are "
      f"multiples of {MULTIPLE}. Change config.image_size."
    )
