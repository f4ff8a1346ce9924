"""The whole method assembled from a config: a batch of images -> losses, raw scores."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8
import ml_collections
import numpy as np

from nps_jax import config as settings
from nps_jax import geometry
from nps_jax import losses
from nps_jax import scoring
from nps_jax.models import counts
from nps_jax.models import encoder as encoders
from nps_jax.models import logical
from nps_jax.models import memory
from nps_jax.models import structural

Tree = Any  # a nested dict of arrays
Levels = Mapping[int, Float[Array, "b _ _ _"]]


@dataclasses.dataclass(frozen=True)
class Detector:
  """Every model part, without their parameters.

  The two modules are trained from one pass of the frozen encoder. Their parameters
  are separate, so the gradient of the summed loss is each module's own gradient.
  """

  config: ml_collections.FrozenConfigDict
  categories: tuple[str, ...]
  deepest: int
  vectors: Float[np.ndarray | Array, "k t"] | None  # the global context's, where given

  @property
  def levels(self) -> tuple[int, ...]:
    return tuple(self.config.encoder.levels)

  @property
  def coarse(self) -> list[int]:
    """The levels that are pooled and remembered."""
    return self._encoder.coarse(self.levels)

  @property
  def counted(self) -> int | None:
    """The level whose scenes are counted, if it is there."""
    return self._encoder.counted(self.levels)

  @property
  def _encoder(self) -> geometry.ResNet | geometry.ViT:
    return geometry.encoder(self.config.encoder.name)

  @property
  def _widths(self) -> dict[int, int]:
    return {level: self._encoder.widths[level] for level in self.levels}

  @property
  def _contexts(self) -> Float[Array, "k t"] | None:
    return None if self.vectors is None else jnp.asarray(self.vectors)

  @property
  def _logical(self) -> logical.LogicalModule:
    return logical.LogicalModule(
      self._widths, self.deepest, len(self.categories), self.config
    )

  @property
  def _structural(self) -> structural.StructuralModule:
    sizes = self.config.structural
    return structural.StructuralModule(
      widths=self._widths,
      width=sizes.width,
      blocks=sizes.blocks,
      embedding=sizes.embedding,
      strides=sizes.strides,
      layout=self._encoder.layout(self.deepest),
    )

  def init(self, key: Key[Array, ""]) -> tuple[Tree, Tree]:
    """Fresh parameters by module, and the codebooks' state."""
    side = settings.image_shape(self.config)
    layout = self._encoder.layout(self.deepest)
    feats = {
      level: jnp.zeros((1, *layout.grid(level, side), width))
      for level, width in self._encoder.widths.items()
      if level <= self.deepest
    }
    first, second = jax.random.split(key)
    params, codes = {}, {}
    if self.config.logical.enabled:
      row = jnp.zeros((1,), jnp.int32)
      variables = self._logical.init(
        first, feats, self._contexts, row, jnp.ones((1,)), side, False
      )
      params["logical"], codes = variables["params"], variables.get("codes", {})
    if self.config.structural.enabled:
      params["structural"] = self._structural.init(second, feats, side)["params"]
    return params, codes

  def features(self, frozen: Tree, images: UInt8[Array, "b h w 3"]) -> Levels:
    """The frozen encoder's levels that the modules read."""
    config = self.config.encoder
    model = encoders.build(config.name, self.deepest, jnp.dtype(config.dtype))
    levels = model.apply({"params": frozen}, encoders.normalise(images))
    wanted = {*self.levels, self.deepest}
    return {level: jax.lax.stop_gradient(levels[level]) for level in sorted(wanted)}

  def objective(
    self,
    params: Tree,
    codes: Tree,
    feats: Levels,
    normal: Levels,
    category: Int[Array, " b"],
    valid: Float[Array, " b"],
    key: Key[Array, ""],
  ) -> tuple[Float[Array, ""], tuple[Tree, dict[str, Float[Array, ""]]]]:
    """The summed loss; with it the codebooks' new state and every term by name.

    Args:
      feats: what the modules see: of normal images and, where they learn to undo
        these, of edited ones.
      normal: what they are to rebuild: the same images' features before any edit.
    """
    side = settings.image_shape(self.config)
    distance = self.config.loss.distance
    gaps, extra, changed = {}, {}, {}
    if self.config.logical.enabled:
      reconstruction, changed = self._logical.apply(
        {"params": params["logical"], "codes": codes},
        *(feats, self._contexts, category, valid, side, True),
        mutable=["codes", "intermediates"],
        rngs={"codes": key},
      )
      rebuilt = reconstruction.rebuilt
      gaps["logical/reconstruction"] = losses.feature_gap(normal, rebuilt, distance)
      if reconstruction.local:
        fixed = jax.lax.stop_gradient(rebuilt)
        gaps["logical/local"] = losses.feature_gap(
          fixed, reconstruction.local, distance
        )
      extra["logical/commitment"] = (
        self.config.codebook.commitment * reconstruction.commitment
      )
      if self.config.codebook.learning == "gradient":
        extra["logical/codes"] = reconstruction.pull
    if self.config.structural.enabled:
      rebuilt = self._structural.apply({"params": params["structural"]}, feats, side)
      gaps["structural/reconstruction"] = losses.feature_gap(normal, rebuilt, distance)
    rows = {name: sum(levels.values()) for name, levels in gaps.items()} | extra

    def mean(row: Float[Array, " b"]) -> Float[Array, ""]:
      return jnp.sum(row * valid) / jnp.maximum(jnp.sum(valid), 1)

    terms = {name: mean(row) for name, row in rows.items()}
    total = sum(terms.values())
    for name, levels in gaps.items():
      terms |= {f"{name}/f{level}": mean(gap) for level, gap in levels.items()}
    use = jax.tree.leaves(changed.get("intermediates", {}))
    if use:
      terms["codebook/perplexity"] = jnp.mean(jnp.stack(use))
    return total, (changed.get("codes", {}), terms)

  def patches(self, feats: Levels) -> Float[Array, "b h w d"]:
    """What the memory holds: patches of the coarse levels, as in PatchCore."""
    levels = self.coarse or self.levels[-1:]
    return memory.patches({level: feats[level] for level in levels})

  def raw_scores(
    self,
    params: Tree,
    codes: Tree,
    feats: Levels,
    category: Int[Array, " b"],
    valid: Float[Array, " b"],
    priors: scoring.Priors,
    own: Int[Array, " b"] | None = None,
  ) -> scoring.RawScores:
    """Uncalibrated maps and statistics; the codebooks stay as they are.

    Args:
      priors: of the images' category; what is None of them shows nothing.
      own: the training images that they are, whose patches the memory passes over.
    """
    side = settings.image_shape(self.config)
    grid = tuple(pixels // scoring.STRIDE for pixels in side)
    distance = self.config.loss.distance
    maps, pooled, cells = {}, {}, None
    if self.config.logical.enabled:
      reconstruction = self._logical.apply(
        {"params": params["logical"], "codes": codes},
        *(feats, self._contexts, category, valid, side, False),
      )
      rebuilt = reconstruction.rebuilt
      maps[scoring.RECONSTRUCTION] = scoring.raw_map(feats, rebuilt, distance, grid)
      if reconstruction.local:
        maps[scoring.DISCREPANCY] = scoring.raw_map(
          rebuilt, reconstruction.local, distance, grid
        )
      if scoring.RESIDUAL in self.config.scoring.pooled:
        pooled[scoring.RESIDUAL] = scoring.residual(feats, rebuilt)
    if self.config.structural.enabled:
      rebuilt = self._structural.apply({"params": params["structural"]}, feats, side)
      maps[scoring.STRUCTURAL] = scoring.raw_map(feats, rebuilt, distance, grid)
    if priors.memory is not None:
      gaps = memory.distance(self.patches(feats), priors.memory, own)
      maps[scoring.MEMORY] = scoring.on_grid(gaps, grid)
    if self.coarse:
      pooled[scoring.FEATURES] = scoring.moments([feats[at] for at in self.coarse])
    if priors.vocabulary is not None:
      belonging = counts.belonging(feats[self.counted], priors.vocabulary)
      pooled[scoring.CODES] = jnp.mean(belonging, axis=(1, 2))
      cells = belonging.astype(jnp.float16)
    return scoring.RawScores(maps, pooled, cells)
