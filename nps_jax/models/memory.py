"""A memory of normal patches: the patches, a greedy choice of them, the nearest one."""

from collections.abc import Mapping
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int
import numpy as np

PROJECTED = 64  # dimensions in which the patches to keep are chosen
ROUND = 512  # patches chosen between two passes over all of them
CANDIDATES = 8192  # patches that these are chosen among
SAME = 4e-6  # squared distance, of the longest patch's square, that is rounding


def patches(levels: Mapping[int, Float[Array, "b _ _ _"]]) -> Float[Array, "b h w d"]:
  """Every cell of the finest level: means of 3 x 3 cells of all levels, side by side.

  Coarser levels are resized to the finest one's grid, as PatchCore has it (2022).
  """
  grid, parts = next(iter(levels.values())).shape[1:3], []
  for feats in levels.values():
    padded = jnp.pad(feats, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    total = jax.lax.reduce_window(
      padded,
      init_value=0.0,
      computation=jax.lax.add,
      window_dimensions=(1, 3, 3, 1),
      window_strides=(1, 1, 1, 1),
      padding="VALID",
    )
    shape = (len(feats), *grid, feats.shape[-1])
    parts.append(jax.image.resize(total / 9, shape, "bilinear"))
  return jnp.concatenate(parts, axis=-1)


def distance(
  rows: Float[Array, "b h w d"], memory: Float[Array, "k d"]
) -> Float[Array, "b h w"]:
  """How far each patch is from the nearest one of the memory, in L2."""

  def nearest(image: Float[Array, "h w d"]) -> Float[Array, "h w"]:
    flat = image.reshape(-1, image.shape[-1])
    gaps = jnp.min(squared_distances(flat, memory), axis=1)
    return jnp.sqrt(gaps).reshape(image.shape[:2])

  return jax.lax.map(nearest, rows)


def squared_distances(
  rows: Float[Array, "p d"], others: Float[Array, "q d"]
) -> Float[Array, "p q"]:
  """Between all pairs, at least 0."""
  inner = jnp.matmul(rows, others.T, precision="highest")  # a small difference of sums
  lengths = jnp.sum(rows**2, axis=1)[:, None] + jnp.sum(others**2, axis=1)[None]
  return jnp.maximum(lengths - 2 * inner, 0)


def coreset(
  rows: Float[np.ndarray, "n d"], count: int, seed: int
) -> Int[np.ndarray, " k"]:
  """Rows, each the farthest from those before it; the first at random.

  `count` of them, or fewer where all others repeat one that is chosen.

  Distances are those of a random projection to PROJECTED dimensions. The farthest row
  is sought among CANDIDATES only, for as long as no other row can be farther: those
  others' distances are brought up to date after ROUND choices, and only ever fall.

  Raises:
    ValueError: a value is not finite.
  """
  if not np.isfinite(rows).all():
    raise ValueError(
      "Patches of the training images are not finite in float16; the memories need "
      "features below 65504. Use other weights, or set config.codebook.memory to 0."
    )
  rng = np.random.default_rng(seed)
  if rows.shape[1] > PROJECTED:
    rows = rows @ rng.normal(size=(rows.shape[1], PROJECTED)).astype(np.float32)
  points = jnp.asarray(rows, jnp.float32)
  same = SAME * jnp.max(jnp.sum(points**2, axis=1))
  gap = jnp.full(len(rows), jnp.inf)
  chosen, fresh = [], [int(rng.integers(len(rows)))]
  while True:
    chosen += fresh
    if len(chosen) >= count:
      return np.array(chosen[:count])
    fresh = np.resize(fresh, ROUND)  # repeated, for one compiled shape
    gap = _nearer(gap, points, points[fresh])
    if jnp.max(gap) <= same:
      return np.array(chosen)
    farthest, number = _farthest(gap, points, same, min(CANDIDATES, len(rows) - 1))
    fresh = np.asarray(farthest)[: int(number)].tolist()


@jax.jit
def _nearer(
  gap: Float[Array, " n"], points: Float[Array, "n d"], fresh: Float[Array, "r d"]
) -> Float[Array, " n"]:
  return jnp.minimum(gap, jnp.min(squared_distances(points, fresh), axis=1))


@functools.partial(jax.jit, static_argnums=3)
def _farthest(
  gap: Float[Array, " n"],
  points: Float[Array, "n d"],
  same: Float[Array, ""],
  candidates: int,
) -> tuple[Int[Array, " r"], Int[Array, ""]]:
  """Up to ROUND next choices among the candidates, and how many there are."""
  top, index = jax.lax.top_k(gap, candidates + 1)
  limit, top, index = top[-1], top[:-1], index[:-1]  # of all other rows
  near = points[index]

  def proceeds(carry):
    number, _, top = carry
    best = jnp.max(top)
    return (number < ROUND) & (best >= limit) & (best > same)

  def choose(carry):
    number, chosen, top = carry
    best = jnp.argmax(top)
    gaps = jnp.sum((near - near[best][None]) ** 2, axis=1)
    return number + 1, chosen.at[number].set(index[best]), jnp.minimum(top, gaps)

  start = (jnp.int32(0), jnp.zeros(ROUND, index.dtype), top)
  number, chosen, _ = jax.lax.while_loop(proceeds, choose, start)
  return chosen, number
