"""M_LAD: rebuilds features from normality priors, and a local view of the result."""

from collections.abc import Mapping
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import ml_collections

from nps_jax import geometry
from nps_jax.models import codebook
from nps_jax.models import context
from nps_jax.models import fusion

LEARNED_WIDTH = 64  # channels of a trainable category vector


class Reconstruction(NamedTuple):
  """The logical module's outputs for a batch of images."""

  rebuilt: dict[int, Float[Array, "b _ _ _"]]
  local: dict[int, Float[Array, "b _ _ _"]]  # the local head's guess of `rebuilt`, if
  # there is one
  commitment: Float[Array, " b"]
  pull: Float[Array, " b"]  # of codes that learn by gradient


class LocalHead(nn.Module):
  """Predicts the module's reconstruction from encoder features a few cells around.

  What it can predict is local; where it fails, the global reading of the image
  disagrees with the local one (after the second student head of EfficientAD).
  """

  widths: Mapping[int, int]
  width: int
  layout: geometry.Layout

  @nn.compact
  def __call__(
    self, feats: Mapping[int, Float[Array, "b _ _ _"]]
  ) -> dict[int, Float[Array, "b _ _ _"]]:
    guesses = {}
    for level, channels in self.widths.items():
      # No normalisation over the image here: it would let the whole image leak in.
      width = self.layout.width(self.width, level)
      hidden = nn.relu(nn.Conv(width, (1, 1), name=f"in{level}")(feats[level]))
      hidden = nn.relu(nn.Conv(width, (3, 3), name=f"mid{level}")(hidden))
      guesses[level] = nn.Conv(channels, (1, 1), name=f"out{level}")(hidden)
    return guesses


class LogicalModule(nn.Module):
  """One-class embedding + global context + codebooks -> fusion decoder."""

  widths: Mapping[int, int]  # channels of the compared encoder levels
  deepest: int  # level that the embedding reads
  categories: int
  config: ml_collections.FrozenConfigDict

  @nn.compact
  def __call__(
    self,
    feats: Mapping[int, Float[Array, "b _ _ _"]],
    vectors: Float[Array, "k t"] | None,
    category: Int[Array, " b"],
    valid: Float[Array, " b"],
    side: fusion.Grid,
    train: bool,
  ) -> Reconstruction:
    """The rebuilt levels, the local head's guesses, and the commitment loss.

    Args:
      feats: encoder features by level, the compared ones and the deepest.
      vectors: the categories' vectors where they are fixed; with the source "learned"
        they are parameters of this module, with "none" there is no context.
      category: each image's row of the vectors.
      valid: 1 for real rows, 0 for padding.
      side: height and width of the images in pixels.
      train: whether codebooks update.
    """
    settings = self.config.logical
    feats = {level: _root_mean_square(feats[level]) for level in feats}
    embedding = fusion.OneClassEmbedding(
      settings.embedding, settings.strides, name="embedding"
    )(feats[self.deepest])
    start = self.deepest + settings.strides
    priors = self._context_maps(vectors, category, start, side)
    codes = self._quantise(feats, embedding, priors, valid, train)
    embedding = jnp.concatenate([embedding, *codes.beside], axis=-1)
    decoder = fusion.FusionDecoder(
      widths=self.widths,
      width=settings.width,
      blocks=settings.blocks,
      fusion=settings.fusion,
      layout=self._layout,
      name="decoder",
    )
    quantise = self._quantiser(codes, valid, train)
    rebuilt = decoder(embedding, start, side, priors, quantise)
    local = {}
    if settings.local_width:
      head = LocalHead(self.widths, settings.local_width, self._layout, name="local")
      local = head(feats)
    return Reconstruction(
      rebuilt=rebuilt,
      local=local,
      commitment=sum(codes.commitment, jnp.zeros_like(valid)),
      pull=sum(codes.pull, jnp.zeros_like(valid)),
    )

  @property
  def _layout(self) -> geometry.Layout:
    return geometry.encoder(self.config.encoder.name).layout(self.deepest)

  def _context_maps(
    self,
    vectors: Float[Array, "k t"] | None,
    category: Int[Array, " b"],
    start: int,
    side: fusion.Grid,
  ) -> dict[int, list[Float[Array, "b _ _ _"]]]:
    """The decoder's priors by level, so far with the global context alone."""
    levels = sorted(self._layout.steps(start, self.widths))
    if self.config.context.source == "learned":
      shape = (self.categories, LEARNED_WIDTH)
      vectors = self.param("vectors", nn.initializers.normal(1.0), shape)
    if vectors is None:
      return {level: [] for level in levels}
    maps = context.GlobalContext(self.config.context.width, name="context")(
      vectors[category], [self._layout.grid(level, side) for level in levels]
    )
    return {level: [prior] for level, prior in zip(levels, maps, strict=True)}

  def _book(self, name: str) -> codebook.Codebook:
    book = self.config.codebook
    return codebook.Codebook(
      size=book.size,
      groups=book.groups,
      learning=book.learning,
      decay=book.decay,
      eps=book.eps,
      reseed_after=book.reseed_after,
      name=name,
    )

  def _quantise(
    self,
    feats: Mapping[int, Float[Array, "b _ _ _"]],
    embedding: Float[Array, "b h w d"],
    priors: dict[int, list[Float[Array, "b _ _ _"]]],
    valid: Float[Array, " b"],
    train: bool,
  ) -> "Codes":
    """The codes that join the embedding or the priors, with their losses."""
    book, codes = self.config.codebook, Codes([], [], [])
    if book.enabled and book.where == "embedding":
      quantised = self._book("codebook")(embedding, valid, train)
      codes.beside.append(codes.add(quantised))
      if self.config.logical.fusion == "attention":
        for maps in priors.values():
          maps.append(quantised.codes)
    if book.enabled and book.where == "levels":
      for level in self.widths:
        keys = nn.Conv(book.width, (1, 1), name=f"codebook{level}_in")(feats[level])
        quantised = self._book(f"codebook{level}")(keys, valid, train)
        priors[level].append(codes.add(quantised))
    return codes

  def _quantiser(self, codes: "Codes", valid: Float[Array, " b"], train: bool):
    """The function that quantises the decoder's own features, if they are to be."""
    book = self.config.codebook
    if not book.enabled or book.where != "decoder":
      return None

    def quantise(level: int, feats: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
      return codes.add(self._book(f"codebook{level}")(feats, valid, train))

    return quantise


class Codes(NamedTuple):
  """The codes that join the embedding, and the losses of all codebooks so far."""

  beside: list[Float[Array, "b h w d"]]  # codes of the embedding, which they join
  commitment: list[Float[Array, " b"]]
  pull: list[Float[Array, " b"]]

  def add(self, quantised: codebook.Quantised) -> Float[Array, "b h w d"]:
    """Keeps the losses, passes on the codes."""
    self.commitment.append(quantised.commitment)
    self.pull.append(quantised.pull)
    return quantised.codes


def _root_mean_square(feats: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
  """Each position's feature scaled to a mean square of 1, so that levels are alike."""
  square = jnp.mean(jnp.square(feats), axis=-1, keepdims=True)
  return feats * jax.lax.rsqrt(square + 1e-6)
