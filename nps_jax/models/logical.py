"""M_LAD: rebuilds features from normality priors, and a local view of the result."""

from collections.abc import Mapping
from typing import NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import ml_collections

from nps_jax.models import codebook
from nps_jax.models import context
from nps_jax.models import fusion

COUNTED = 3  # level whose codes are counted: its scenes are small parts, not points
LEARNED_WIDTH = 64  # channels of a trainable category vector


class Reconstruction(NamedTuple):
  """What the logical module says of an image."""

  rebuilt: dict[int, Float[Array, "b _ _ _"]]
  local: dict[int, Float[Array, "b _ _ _"]]  # the local head's guess of `rebuilt`
  parts: Float[Array, "b k"] | None  # how much of the image each code describes
  commitment: Float[Array, " b"]
  pull: Float[Array, " b"]  # of codes that learn by gradient


class LocalHead(nn.Module):
  """Predicts the module's reconstruction from encoder features a few cells around.

  What it can predict is local; the rest is where the global reading of the image
  disagrees with the local one (after the second student head of EfficientAD).
  """

  widths: Mapping[int, int]
  width: int

  @nn.compact
  def __call__(
    self, feats: Mapping[int, Float[Array, "b _ _ _"]]
  ) -> dict[int, Float[Array, "b _ _ _"]]:
    guesses = {}
    for level, channels in self.widths.items():
      # No normalisation over the image here: it would let the whole image leak in.
      width = fusion.level_width(self.width, level)
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
      vectors: the categories' vectors where they are given; with the source "learned"
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
    priors = self._context(vectors, category, start, side)
    held = self._quantise(feats, embedding, priors, valid, train)
    embedding = jnp.concatenate([embedding, *held.beside], axis=-1)
    decoder = fusion.FusionDecoder(
      *(self.widths, settings.width, settings.blocks, settings.fusion), name="decoder"
    )
    own = self._own_codes(held, valid, train)
    rebuilt = decoder(embedding, start, side, priors, own)
    local = LocalHead(self.widths, settings.local_width, name="local")(feats)
    parts = self._parts(feats, valid, train)
    losses = ([jnp.zeros_like(valid), *each] for each in (held.commitment, held.pull))
    return Reconstruction(rebuilt, local, parts, *map(sum, losses))

  def _parts(
    self,
    feats: Mapping[int, Float[Array, "b _ _ _"]],
    valid: Float[Array, " b"],
    train: bool,
  ) -> Float[Array, "b k"] | None:
    """The shares of the codes that are counted, if there are any."""
    book = self.config.codebook
    if not (book.parts and COUNTED in self.widths):
      return None
    rest = (book.parts_decay, book.eps, book.reseed_after)
    held = codebook.PartCodebook(book.parts, *rest, name="parts")
    return held(feats[COUNTED], valid, train)

  def _context(
    self,
    vectors: Float[Array, "k t"] | None,
    category: Int[Array, " b"],
    start: int,
    side: fusion.Grid,
  ) -> dict[int, list[Float[Array, "b _ _ _"]]]:
    """The decoder's priors by level, so far with the global context alone."""
    levels = range(min(self.widths), start)
    if self.config.context.source == "learned":
      shape = (self.categories, LEARNED_WIDTH)
      vectors = self.param("vectors", nn.initializers.normal(1.0), shape)
    if vectors is None:
      return {level: [] for level in levels}
    maps = context.GlobalContext(self.config.context.width, name="context")(
      vectors[category], [fusion.grid_at(level, side) for level in levels]
    )
    return {level: [prior] for level, prior in zip(levels, maps, strict=True)}

  def _book(self, name: str) -> codebook.Codebook:
    book = self.config.codebook
    return codebook.Codebook(
      *(book.size, book.groups, book.learning, book.decay, book.eps, book.reseed_after),
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
    book, found = self.config.codebook, Codes([], [], [])
    if book.enabled and book.where == "embedding":
      codes = found.add(self._book("codebook")(embedding, valid, train))
      found.beside.append(codes)
      if self.config.logical.fusion == "attention":
        for given in priors.values():
          given.append(codes)
    if book.enabled and book.where == "levels":
      for level in self.widths:
        keys = nn.Conv(book.width, (1, 1), name=f"codebook{level}_in")(feats[level])
        held = self._book(f"codebook{level}")(keys, valid, train)
        priors[level].append(found.add(held))
    return found

  def _own_codes(self, found: "Codes", valid: Float[Array, " b"], train: bool):
    """What quantises the decoder's own features, if they are to be."""
    book = self.config.codebook
    if not book.enabled or book.where != "decoder":
      return None

    def quantise(level: int, feats: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
      return found.add(self._book(f"codebook{level}")(feats, valid, train))

    return quantise


class Codes(NamedTuple):
  """What the decoder's codebooks say, as it gathers."""

  beside: list[Float[Array, "b h w d"]]  # codes of the embedding, which they join
  commitment: list[Float[Array, " b"]]
  pull: list[Float[Array, " b"]]

  def add(self, held: codebook.Quantised) -> Float[Array, "b h w d"]:
    """Keeps the losses, passes on the codes."""
    self.commitment.append(held.commitment)
    self.pull.append(held.pull)
    return held.codes


def _root_mean_square(feats: Float[Array, "b h w d"]) -> Float[Array, "b h w d"]:
  """Each position's feature scaled to a mean square of 1, so that levels are alike."""
  square = jnp.mean(jnp.square(feats), axis=-1, keepdims=True)
  return feats * jax.lax.rsqrt(square + 1e-6)
