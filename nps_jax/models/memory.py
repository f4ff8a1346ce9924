"""A memory of normal patches: the patches, a greedy choice of them, the nearest one."""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, Shaped
import numpy as np

from nps_jax.models import grids

PROJECTED = 64  # dimensions in which the patches to keep are chosen
BLOCK = 1024  # patches whose distances are brought up to date at once
ROUND = 512  # patches chosen between two passes over all of them
CANDIDATES = 8192  # patches that these are chosen among
COARSE = 30  # dimensions in which candidates for the nearest patch are sought
GROUPS = 16  # candidates for each patch
FAR = 1e30  # squared distance of what is no patch
QUERIES = 4096  # patches whose candidates are sought at once
TILE = {"cpu": 256, "else": 8192}  # of the memory, at once: what fits a cache
EXACT = {"cpu": 256, "else": 4096}  # patches whose candidates are looked at, at once
SAME = 4e-6  # squared distance, of the longest patch's square, that is rounding


def patches(levels: Mapping[int, Float[Array, "b _ _ _"]]) -> Float[Array, "b h w d"]:
  """Every cell of the finest level: means of 3 x 3 cells of all levels, side by side.

  Coarser levels are resized to the finest one's grid, as PatchCore has it (2022).
  """
  grid, parts = next(iter(levels.values())).shape[1:3], []
  for feats in levels.values():
    padded = jnp.pad(feats, ((0, 0), (1, 1), (1, 1), (0, 0)), "edge")
    parts.append(grids.resized(grids.window_sum(padded) / 9, grid))
  return jnp.concatenate(parts, axis=-1)


class Memory(NamedTuple):
  """Normal patches, and what finds the nearest of them."""

  patches: Float[np.ndarray | Array, "k d"]
  owners: Shaped[np.ndarray | Array, " k"]  # the image that each is of; -1: unknown
  basis: Float32[np.ndarray | Array, "d r"]  # directions in which patches vary most
  centre: Float32[np.ndarray | Array, " r"]  # of the patches, along these
  coarse: Float32[np.ndarray | Array, "q m"]  # the patches from there, see `remember`


def remember(
  patches: Float[np.ndarray, "k d"], owners: Int[np.ndarray, " k"] | None = None
) -> Memory:
  """The patches, made ready for `distance`; `owners` are the images that they are of.

  A column of `coarse` is (-2 p, 1, p.p) for the patch p along the basis, so that its
  product with (x, x.x, 1) is the squared distance from x. Columns beyond the last patch
  are far from everything; they fill the last place of some of GROUPS groups.
  """
  rows = np.asarray(patches, np.float64)
  middle = rows.mean(axis=0)
  _, directions = np.linalg.eigh((rows - middle).T @ (rows - middle))
  basis = directions[:, ::-1][:, :COARSE]
  along, ones = (rows - middle) @ basis, np.ones((len(rows), 1))
  columns = np.concatenate(
    [-2 * along, ones, np.square(along).sum(1, keepdims=True)], 1
  )
  far = np.zeros((-len(rows) % GROUPS, columns.shape[1]))
  far[:, -1] = FAR
  coarse = np.concatenate([columns, far]).T
  if owners is None:
    owners = np.full(len(rows), -1)
  return Memory(
    patches,
    owners.astype(np.int32),
    np.float32(basis),
    np.float32(middle @ basis),
    np.float32(coarse),
  )


def distance(
  rows: Float[Array, "b h w d"], memory: Memory, own: Int[Array, " b"] | None = None
) -> Float[Array, "b h w"]:
  """How far each patch is from the nearest one of the memory, in L2.

  Exact to the nearest of GROUPS candidates: of each group of the memory the patch that
  is nearest along the basis (ours). So it may be too far, but by little and rarely:
  distances themselves are never those of fewer dimensions.

  Args:
    own: the owner whose patches are passed over, for each image; FAR is then what an
      image is from a memory that has no others.
  """
  b, h, w, d = rows.shape
  flat = rows.reshape(b, h * w, d)
  where = "cpu" if jax.default_backend() == "cpu" else "else"
  seek = functools.partial(_candidates, memory=memory, own=own, tile=TILE[where])
  candidates = _in_turns(seek, QUERIES, flat)
  exact = functools.partial(_nearest, memory=memory, own=own)
  return _in_turns(exact, EXACT[where], flat, candidates).reshape(b, h, w)


def _in_turns(
  function: Callable[..., Array], most: int, *rows: Array
) -> Shaped[Array, "b p ..."]:
  """The function of [b n _] rows, for at most so many of the b * p rows at once.

  Every turn has rows of every image, as these may lie on several devices.
  """
  b, p = rows[0].shape[:2]
  size = next(n for n in range(min(p, max(1, most // b)), 0, -1) if p % n == 0)
  turns = [jnp.swapaxes(each.reshape(b, p // size, size, -1), 0, 1) for each in rows]
  done = jax.lax.map(lambda turn: function(*turn), turns)
  return jnp.swapaxes(done, 0, 1).reshape(b, p, *done.shape[3:])


def _candidates(
  rows: Float[Array, "b n d"],
  memory: Memory,
  own: Int[Array, " b"] | None,
  tile: int,
) -> Int[Array, "b n g"]:
  """Of each group of the memory's patches the nearest along the basis.

  Places of patches ride in the last bits of the distances: for a positive float, its
  bits as an integer are in the same order, so that one minimum of integers finds the
  nearest patch of a group, and which it is. What rounding made negative is first, as it
  is to be. One tile of the memory after another.
  """
  b, n, _ = rows.shape
  along = jnp.matmul(rows, memory.basis, precision="highest")
  along -= memory.centre[None, None]
  lengths = jnp.sum(jnp.square(along), axis=-1, keepdims=True)
  keys = jnp.concatenate([along, lengths, jnp.ones((b, n, 1))], axis=-1)
  tile = min(tile, memory.coarse.shape[1])
  unused = jnp.zeros((len(memory.coarse), -memory.coarse.shape[1] % tile))
  unused = unused.at[-1].set(FAR)
  coarse = jnp.concatenate([memory.coarse, unused], axis=1)
  owners = jnp.pad(memory.owners, (0, coarse.shape[1] - len(memory.owners)))
  places, each = coarse.shape[1] // GROUPS, tile // GROUPS
  last_bits = (1 << (places - 1).bit_length()) - 1

  def nearer(best: Int[Array, "b n g"], turn: tuple[Array, Array, Array]):
    columns, first, owned = turn
    gaps = jnp.matmul(keys, columns, precision="highest")
    if own is not None:
      gaps = jnp.where(owned[None, None] == own[:, None, None], FAR, gaps)
    groups = gaps.reshape(b, n, each, GROUPS)
    bits = jax.lax.bitcast_convert_type(groups, jnp.int32) & ~last_bits
    ranked = bits | (first + jnp.arange(each))[None, None, :, None]
    return jnp.minimum(best, jnp.min(ranked, axis=2)), None

  tiles = jnp.swapaxes(coarse.reshape(len(coarse), -1, tile), 0, 1)
  start = jnp.full((b, n, GROUPS), jnp.iinfo(jnp.int32).max)
  turns = tiles, jnp.arange(0, places, each), owners.reshape(-1, tile)
  best, _ = jax.lax.scan(nearer, start, turns)
  candidates = (best & last_bits) * GROUPS + jnp.arange(GROUPS)[None, None]
  return jnp.minimum(candidates, len(memory.patches) - 1)


def _nearest(
  rows: Float[Array, "b n d"],
  candidates: Int[Array, "b n g"],
  memory: Memory,
  own: Int[Array, " b"] | None,
) -> Float[Array, "b n"]:
  """The distance to the nearest of each row's candidates."""
  gaps = rows[:, :, None] - jnp.asarray(memory.patches)[candidates]
  squares = jnp.sum(jnp.square(gaps), axis=-1)
  if own is not None:
    owned = jnp.asarray(memory.owners)[candidates]
    squares = jnp.where(owned == own[:, None, None], FAR, squares)
  return jnp.sqrt(jnp.min(squares, axis=-1))


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
  unused = -len(rows) % BLOCK
  points = jnp.pad(jnp.asarray(rows, jnp.float32), ((0, unused), (0, 0)))
  same = SAME * jnp.max(jnp.sum(jnp.square(points), axis=1))
  gap = jnp.repeat(jnp.array([jnp.inf, -1.0]), jnp.array([len(rows), unused]))
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
  """The gaps, n a multiple of BLOCK, with the fresh points among the chosen."""

  def nearer(block: tuple[Float[Array, " m"], Float[Array, "m d"]]):
    before, rows = block
    return jnp.minimum(before, jnp.min(squared_distances(fresh, rows), axis=0))

  blocks = gap.reshape(-1, BLOCK), points.reshape(-1, BLOCK, points.shape[1])
  return jax.lax.map(nearer, blocks).reshape(-1)


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
  lengths, columns = jnp.sum(jnp.square(near), axis=1), near.T

  def proceeds(carry):
    number, _, _, _, farthest = carry
    return (number < ROUND) & (farthest >= limit) & (farthest > same)

  def choose(carry):
    number, chosen, top, at, _ = carry
    inner = jnp.matmul(near[at], columns, precision="highest")
    top = jnp.minimum(top, jnp.maximum(lengths + lengths[at] - 2 * inner, 0))
    best = jnp.argmax(top)
    return number + 1, chosen.at[number].set(index[at]), top, best, top[best]

  start = (jnp.int32(0), jnp.zeros(ROUND, index.dtype), top, jnp.argmax(top), top[0])
  number, chosen, *_ = jax.lax.while_loop(proceeds, choose, start)
  return chosen, number
