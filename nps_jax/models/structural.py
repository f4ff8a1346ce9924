"""M_SAD: reverse distillation without priors, for what looks locally new."""

from collections.abc import Mapping

from flax import linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from nps_jax import geometry
from nps_jax.models import fusion


class StructuralModule(nn.Module):
  """Fuses the encoder levels, squeezes them, and rebuilds each (RD4AD, section 3).

  # Differs from the paper: RD4AD's bottleneck and decoder mirror the whole encoder;
  # here their width and depth are settings, so that a CPU can train them in minutes.
  """

  widths: Mapping[int, int]  # channels of the compared encoder levels
  width: int
  blocks: int
  embedding: int  # channels of the bottleneck
  strides: int  # stride-2 convolutions from the deepest compared level to it
  layout: geometry.Layout = geometry.PYRAMID

  @nn.compact
  def __call__(
    self, feats: Mapping[int, Float[Array, "b _ _ _"]], side: fusion.Grid
  ) -> dict[int, Float[Array, "b _ _ _"]]:
    """The compared levels as rebuilt from one bottleneck below the deepest of them."""
    deepest = max(self.widths)
    merged = []
    for level in sorted(self.widths):
      lowered = feats[level]
      for step in range(level, deepest):
        if self.layout.stride(step + 1) == self.layout.stride(step):
          continue
        width = self.layout.width(self.width, step + 1)
        lowered = fusion.ConvBlock(width, stride=2, name=f"lower{level}_{step}")(
          lowered
        )
      merged.append(lowered)
    width = self.layout.width(self.width, deepest)
    fused = fusion.ConvBlock(width, kernel=1, name="merge")(
      jnp.concatenate(merged, axis=-1)
    )
    embedding = fused
    for step in range(self.strides):
      embedding = fusion.ConvBlock(self.width, stride=2, name=f"squeeze{step}")(
        embedding
      )
    embedding = fusion.ConvBlock(self.embedding, kernel=1, name="narrow")(embedding)
    for block in range(self.blocks):
      embedding = fusion.ResidualBlock(name=f"bottleneck{block}")(embedding)
    decoder = fusion.FusionDecoder(
      widths=self.widths,
      width=self.width,
      blocks=self.blocks,
      layout=self.layout,
      name="decoder",
    )
    return decoder(embedding, start=deepest + 1, side=side, priors={})
