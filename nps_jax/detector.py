"""The whole method assembled from a config: a batch of images -> losses, raw scores."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt8
import ml_collections
import numpy as np

from nps_jax import losses
from nps_jax import scoring
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
  def _widths(self) -> dict[int, int]:
    widths = encoders.level_widths(self.config.encoder.name)
    return {level: widths[level] for level in self.levels}

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
    settings = self.config.structural
    return structural.StructuralModule(
      widths=self._widths,
      width=settings.width,
      blocks=settings.blocks,
      embedding=settings.embedding,
      strides=settings.strides,
    )

  def init(self, key: Key[Array, ""]) -> tuple[Tree, Tree]:
    """Fresh parameters by module, and the codebooks' state."""
    side = self.config.image_size
    feats = {
      level: jnp.zeros((1, -(-side // 2**level), -(-side // 2**level), width))
      for level, width in encoders.level_widths(self.config.encoder.name).items()
      if level <= self.deepest
    }
    first, second = jax.random.split(key)
    row = jnp.zeros((1,), jnp.int32)
    variables = self._logical.init(
      first, feats, self._contexts, row, jnp.ones((1,)), (side, side), False
    )
    params = {"logical": variables["params"]}
    if self.config.structural.enabled:
      params["structural"] = self._structural.init(second, feats, (side, side))[
        "params"
      ]
    return params, variables.get("codes", {})

  def features(self, frozen: Tree, images: UInt8[Array, "b h w 3"]) -> Levels:
    """The frozen encoder's levels that the modules read."""
    config = self.config.encoder
    model = encoders.Encoder(config.name, self.deepest, jnp.dtype(config.dtype))
    levels = model.apply({"params": frozen}, encoders.normalise(images))
    wanted = {*self.levels, self.deepest}
    return {level: jax.lax.stop_gradient(levels[level]) for level in sorted(wanted)}

  def objective(
    self,
    params: Tree,
    codes: Tree,
    feats: Levels,
    category: Int[Array, " b"],
    valid: Float[Array, " b"],
    key: Key[Array, ""],
  ) -> tuple[Float[Array, ""], tuple[Tree, dict[str, Float[Array, ""]]]]:
    """The summed loss; with it the codebooks' new state and every term by name."""
    side = (self.config.image_size,) * 2
    distance = self.config.loss.distance
    reconstruction, changed = self._logical.apply(
      {"params": params["logical"], "codes": codes},
      *(feats, self._contexts, category, valid, side, True),
      mutable=["codes", "intermediates"],
      rngs={"codes": key},
    )
    fixed = jax.lax.stop_gradient(reconstruction.rebuilt)
    gaps = {
      "logical/reconstruction": losses.feature_gap(
        feats, reconstruction.rebuilt, distance
      ),
      "logical/local": losses.feature_gap(fixed, reconstruction.local, distance),
    }
    if self.config.structural.enabled:
      rebuilt = self._structural.apply({"params": params["structural"]}, feats, side)
      gaps["structural/reconstruction"] = losses.feature_gap(feats, rebuilt, distance)
    rows = {name: sum(levels.values()) for name, levels in gaps.items()}
    rows["logical/commitment"] = (
      self.config.codebook.commitment * reconstruction.commitment
    )
    if self.config.codebook.learning == "gradient":
      rows["logical/codes"] = reconstruction.pull

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

  def patches(self, feats: Levels) -> dict[str, Float[Array, "b h w d"]]:
    """What the memories hold, by the names of their maps: the coarse levels' patches.

    At the features' own lengths, as in PatchCore, and with each feature at length 1
    (ours), where light and contrast matter less.
    """
    coarse = [level for level in self.levels if level >= scoring.COARSE]
    chosen = {level: feats[level] for level in coarse or self.levels[-1:]}
    return {
      scoring.MEMORY: memory.patches(chosen),
      f"{scoring.MEMORY}_unit": memory.patches(jax.tree.map(losses.unit, chosen)),
    }

  def raw_scores(
    self,
    params: Tree,
    codes: Tree,
    feats: Levels,
    category: Int[Array, " b"],
    valid: Float[Array, " b"],
    normal: Mapping[str, Float[Array, "k d"]] | None = None,
  ) -> scoring.RawScores:
    """Uncalibrated maps and pooled statistics; the codebooks stay as they are.

    Args:
      normal: the memories of the images' category; None: no maps of them.
    """
    side = (self.config.image_size,) * 2
    grid = (self.config.image_size // scoring.STRIDE,) * 2
    distance = self.config.loss.distance
    reconstruction = self._logical.apply(
      {"params": params["logical"], "codes": codes},
      *(feats, self._contexts, category, valid, side, False),
    )
    maps = {}
    if self.config.logical.maps != "discrepancy":
      maps[scoring.RECONSTRUCTION] = scoring.raw_map(
        feats, reconstruction.rebuilt, distance, grid
      )
    if self.config.logical.maps != "reconstruction":
      maps[scoring.DISCREPANCY] = scoring.raw_map(
        reconstruction.rebuilt, reconstruction.local, distance, grid
      )
    if normal:
      patches = self.patches(feats)
      for name, remembered in normal.items():
        maps[name] = scoring.on_grid(memory.distance(patches[name], remembered), grid)
    if self.config.structural.enabled:
      rebuilt = self._structural.apply({"params": params["structural"]}, feats, side)
      maps[scoring.STRUCTURAL] = scoring.raw_map(feats, rebuilt, distance, grid)
    pooled = scoring.pooled_statistics(feats, reconstruction.rebuilt)
    if reconstruction.parts is not None:
      pooled["codes"] = jnp.sqrt(reconstruction.parts)  # even spread, as of counts
    return scoring.RawScores(maps, pooled)
