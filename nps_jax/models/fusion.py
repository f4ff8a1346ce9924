"""The one-class embedding and the decoder that fuses it with normality priors."""

from collections.abc import Callable, Mapping, Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from nps_jax import geometry
from nps_jax.models import grids

Grid = geometry.Grid
TOKENS, HEADS = 8, 4  # of cross-attention: rows and columns of priors, and its heads


class ConvBlock(nn.Module):
  """Convolution, group normalisation, ReLU.

  Group rather than batch normalisation (ours): no running statistics, no dependence
  on the other images of a batch, and padding rows cannot matter.
  """

  width: int
  kernel: int = 3
  stride: int = 1

  @nn.compact
  def __call__(self, feats: Float[Array, "b h w d"]) -> Float[Array, "b y x c"]:
    pad = self.kernel // 2
    feats = nn.Conv(
      self.width,
      (self.kernel, self.kernel),
      strides=self.stride,
      padding=((pad, pad), (pad, pad)),
      use_bias=False,
    )(feats)
    return nn.relu(nn.GroupNorm(num_groups=_groups(self.width))(feats))


class ResidualBlock(nn.Module):
  """Two 3x3 convolutions around a skip; the width stays."""

  @nn.compact
  def __call__(self, feats: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
    width = feats.shape[-1]
    inner = ConvBlock(width)(feats)
    inner = nn.Conv(width, (3, 3), use_bias=False)(inner)
    inner = nn.GroupNorm(num_groups=_groups(width), scale_init=nn.initializers.zeros)(
      inner
    )
    return nn.relu(feats + inner)


class OneClassEmbedding(nn.Module):
  """OCE: the deepest level through stride-2 convolutions (two in the paper)."""

  width: int
  strides: int

  @nn.compact
  def __call__(self, feats: Float[Array, "b h w d"]) -> Float[Array, "b y x c"]:
    for _ in range(self.strides - 1):
      feats = ConvBlock(max(self.width, feats.shape[-1]), stride=2)(feats)
    return nn.Conv(self.width, (3, 3), strides=2, padding=((1, 1), (1, 1)))(feats)


class CrossAttention(nn.Module):
  """What each position finds in the priors (decoder queries, prior keys and values).

  A prior of more than TOKENS rows or columns is averaged down to them first.
  """

  @nn.compact
  def __call__(
    self, feats: Float[Array, "b h w d"], priors: Sequence[Float[Array, "b _ _ _"]]
  ) -> Float[Array, "b h w d"]:
    b, h, w, width = feats.shape
    tokens = []
    for index, prior in enumerate(priors):
      rows, columns = (min(TOKENS, size) for size in prior.shape[1:3])
      coarse = jax.image.resize(prior, (b, rows, columns, prior.shape[-1]), "linear")
      cells = coarse.reshape(b, rows * columns, -1)
      content = nn.Dense(width, name=f"in{index}")(cells)
      shape = (rows * columns, width)
      place = self.param(f"place{index}", nn.initializers.normal(0.02), shape)
      tokens.append(content + place[None])
    attention = nn.MultiHeadDotProductAttention(HEADS, qkv_features=width)
    queries = feats.reshape(b, h * w, width)
    return attention(queries, jnp.concatenate(tokens, axis=1)).reshape(feats.shape)


class FusionDecoder(nn.Module):
  """Rebuilds encoder levels from an embedding and priors, coarse to fine.

  At each level: upsample, concatenate the level's priors, 1x1 convolution, residual
  blocks; a linear 1x1 head where the level is compared. With the fusion "attention"
  the priors are added by cross-attention instead, after the 1x1 convolution.
  """

  widths: Mapping[int, int]  # channels of the compared encoder levels
  width: int  # channels at the coarse levels; halved at each finer one, see `layout`
  blocks: int
  fusion: str = "concat"
  layout: geometry.Layout = geometry.PYRAMID

  @nn.compact
  def __call__(
    self,
    embedding: Float[Array, "b h w d"],
    start: int,
    side: Grid,
    priors: Mapping[int, Sequence[Float[Array, "b _ _ _"]]],
    quantise: Callable[[int, Array], Array] | None = None,
  ) -> dict[int, Float[Array, "b _ _ _"]]:
    """The rebuilt levels.

    Args:
      embedding: features at level `start`, coarser than all compared levels.
      start: the embedding's level.
      side: height and width of the image in pixels.
      priors: maps to fuse at each level that is passed, at its grid; for attention at
        any.
      quantise: the codes of the decoder's own features at a level, to join these.
    """
    feats, rebuilt = embedding, {}
    for level in self.layout.steps(start, self.widths):
      width = self.layout.width(self.width, level)
      feats = grids.resized(feats, self.layout.grid(level, side))
      maps = priors.get(level, ())
      if self.fusion == "concat":
        feats = jnp.concatenate([feats, *maps], axis=-1)
      feats = ConvBlock(width, kernel=1, name=f"fuse{level}")(feats)
      if self.fusion == "attention" and maps:
        feats += CrossAttention(name=f"attention{level}")(feats, maps)
      if quantise is not None:
        feats = jnp.concatenate([feats, quantise(level, feats)], axis=-1)
        feats = ConvBlock(width, kernel=1, name=f"codes{level}")(feats)
      for block in range(self.blocks):
        feats = ResidualBlock(name=f"level{level}_block{block}")(feats)
      if level in self.widths:
        head = nn.Conv(self.widths[level], (1, 1), name=f"head{level}")
        rebuilt[level] = head(feats)
    return rebuilt


def _groups(width: int) -> int:
  """Groups of at least eight channels, at most 16 of them."""
  groups = max(1, min(16, width // 8))
  while width % groups:
    groups -= 1
  return groups
