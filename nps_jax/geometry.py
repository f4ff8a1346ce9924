"""Which encoders there are, and how their levels lie over an image.

This is the only place that knows it: what reads a level asks here for its grid.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

Grid = tuple[int, int]


class Layout(NamedTuple):
  """How far apart the positions of each level are.

  Levels up to `last` are all alike; after it the stride doubles from level to level.
  """

  patch: int  # pixels from one position to the next, up to `last`
  last: int

  def stride(self, level: int) -> int:
    """Pixels from one position of the level to the next."""
    return self.patch << max(0, level - self.last)

  def grid(self, level: int, side: Grid) -> Grid:
    """Rows and columns of a level for an image of `side` pixels."""
    return tuple(-(-pixels // self.stride(level)) for pixels in side)

  def width(self, width: int, level: int) -> int:
    """A decoder's channels: `width` from stride 14 on, half as many at half of it."""
    return max(8, width >> max(0, (16 // self.stride(level)).bit_length() - 1))

  def steps(self, start: int, levels: Collection[int]) -> list[int]:
    """What a decoder passes from below `start` up to the finest of these levels.

    Levels of the same stride as the one before are passed only if they are asked for.
    """
    below = range(start - 1, min(levels) - 1, -1)
    return [level for level in below if level > self.last or level in levels]


PYRAMID = Layout(patch=1, last=0)  # strides 2, 4, 8, 16, 32 and on


class ResNet(NamedTuple):
  """What tells one ResNet from another; its levels are the stem and four layers."""

  depths: tuple[int, int, int, int]  # blocks of layer1..layer4
  inner: int  # channels of the 3x3 convolution in layer1; doubles from layer to layer
  bottleneck: bool  # blocks of 1x1, 3x3, 1x1 that widen; else of two 3x3

  multiple = 32  # image sides are multiples of it: the stride of f5
  usual = (2, 3, 4)  # levels, for a message
  least = 1  # that the highest level in use must be

  @property
  def widths(self) -> dict[int, int]:
    """Channels of f1..f5."""
    first = 256 if self.bottleneck else 64
    return {1: 64} | {level: first * 2 ** (level - 2) for level in range(2, 6)}

  def layout(self, deepest: int) -> Layout:
    """Each level's stride is twice that of the level before, the deepest's too."""
    return PYRAMID

  def coarse(self, levels: Sequence[int]) -> list[int]:
    """Those whose features are pooled and remembered: finer ones follow the light."""
    return [level for level in levels if level >= 3]

  def counted(self, levels: Sequence[int]) -> int | None:
    """That whose scenes are counted, if it is there: small parts, not points."""
    return 3 if 3 in levels else None


class ViT(NamedTuple):
  """What tells one vision transformer from another; its levels are its blocks."""

  width: int
  depth: int  # blocks
  heads: int
  registers: int  # tokens that belong to no patch, beside the class token
  trained: int = 37  # patches along each side of the images of its training

  patch = 14  # pixels along a patch's side
  multiple = 28  # of the patch, and of the raw maps' stride of 4
  usual = (4, 8, 12)

  @property
  def least(self) -> int:
    """Early blocks alone say little more than a patch's colour and place."""
    return self.depth // 2

  @property
  def widths(self) -> dict[int, int]:
    """Channels by block."""
    return dict.fromkeys(range(1, self.depth + 1), self.width)

  def layout(self, deepest: int) -> Layout:
    """All blocks are alike; beyond the deepest in use strides double."""
    return Layout(self.patch, deepest)

  def coarse(self, levels: Sequence[int]) -> list[int]:
    """All: none is finer than another."""
    return list(levels)

  def counted(self, levels: Sequence[int]) -> int | None:
    """The middle one."""
    return levels[len(levels) // 2]


ENCODERS: dict[str, ResNet | ViT] = {
  "resnet18": ResNet((2, 2, 2, 2), 64, False),
  "resnet34": ResNet((3, 4, 6, 3), 64, False),
  "resnet50": ResNet((3, 4, 6, 3), 64, True),
  "resnet101": ResNet((3, 4, 23, 3), 64, True),
  "wide_resnet50_2": ResNet((3, 4, 6, 3), 128, True),
  "wide_resnet101_2": ResNet((3, 4, 23, 3), 128, True),
  "dinov2_vits14": ViT(width=384, depth=12, heads=6, registers=0),
  "dinov2_vitb14": ViT(width=768, depth=12, heads=12, registers=0),
  "dinov2_vits14_reg": ViT(width=384, depth=12, heads=6, registers=4),
  "dinov2_vitb14_reg": ViT(width=768, depth=12, heads=12, registers=4),
}


def encoder(name: str) -> ResNet | ViT:
  """The encoder of that name.

  Raises:
    ValueError: none has this name.
  """
  if name not in ENCODERS:
    raise ValueError(
      f"config.encoder.name is {name!r}; expected one of {', '.join(ENCODERS)}."
    )
  return ENCODERS[name]
