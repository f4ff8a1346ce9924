"""Records to batches: decoded, shuffled or in order, sharded over hosts, padded."""

from collections.abc import Callable, Iterator, Sequence
import functools
import math

from absl import logging
import grain
from jaxtyping import Int, UInt8
import numpy as np

from nps_jax.data import decoding
from nps_jax.data import records

CACHE_LIMIT = 2**30  # bytes of decoded training images that may stay in memory
EPOCHS = 2**31  # as good as endless; grain's own endless overflows at batch size 1


def train_batches(
  images: Sequence[records.Record],
  contexts: Sequence[int],
  *,
  batch_size: int,
  size: tuple[int, int],
  seed: int,
  threads: int,
  start_step: int = 0,
  shard_index: int = 0,
  shard_count: int = 1,
  cache: bool = True,
) -> Iterator[records.Batch]:
  """Endless shuffled batches; every row is valid.

  Each epoch is a new permutation, and batches go on across its border. A row's index
  is its record's position. The order depends on the seed and the number of records,
  not on threads or shards: the shards' rows, in order, are the single host's batch.

  Args:
    contexts: each record's category index.
    batch_size: rows over all shards.
    start_step: batches to leave out at the beginning, undecoded.
    cache: keeps decoded images in memory if they take at most CACHE_LIMIT bytes.

  Raises:
    ValueError: no records, or not as many contexts; a batch that does not divide over
      the shards; while iterating, an image that cannot be read.
  """
  if not images:
    raise ValueError("There are no training images.")
  context = _checked(images, contexts)
  rows = _shard(batch_size, shard_index, shard_count)
  read = functools.partial(_read, images, size)
  if cache and len(images) * math.prod(size) * 3 <= CACHE_LIMIT:
    read = functools.cache(read)
  elif cache:
    logging.info("Training images exceed the cache; each epoch decodes them again.")
  # Grain shuffles epoch e with seed + e, so that neighbouring seeds would share epochs.
  spread = int(np.random.SeedSequence(seed).generate_state(1)[0])
  order = grain.MapDataset.range(len(images)).shuffle(seed=spread).repeat(EPOCHS)

  def load(index: np.ndarray) -> records.Batch:
    return _batch(read, size, context, index[rows])

  return _stream(order.batch(batch_size)[start_step:].map(load), threads)


def eval_batches(
  images: Sequence[records.Record],
  contexts: Sequence[int],
  *,
  batch_size: int,
  size: tuple[int, int],
  threads: int,
  shard_index: int = 0,
  shard_count: int = 1,
) -> Iterator[records.Batch]:
  """Each record once, in order; all shards yield the same number of batches.

  Padding rows are zero, with valid = 0 and index = -1. The shards' rows, in order, are
  the single host's batch.

  Args:
    contexts: each record's category index.
    batch_size: rows over all shards.

  Raises:
    ValueError: as many contexts as records are needed; a batch that does not divide
      over the shards; while iterating, an image that cannot be read.
  """
  context = _checked(images, contexts)
  rows = _shard(batch_size, shard_index, shard_count)
  read = functools.partial(_read, images, size)

  def load(step: int) -> records.Batch:
    index = np.arange(step * batch_size, (step + 1) * batch_size)[rows]
    return _batch(read, size, context, np.where(index < len(images), index, -1))

  steps = grain.MapDataset.range(-(-len(images) // batch_size))
  return _stream(steps.map(load), threads)


def _checked(
  images: Sequence[records.Record], contexts: Sequence[int]
) -> Int[np.ndarray, " n"]:
  if len(images) != len(contexts):
    raise ValueError(f"Found {len(contexts)} contexts for {len(images)} records.")
  return np.asarray(contexts, np.int32)


def _read(
  images: Sequence[records.Record], size: tuple[int, int], index: int
) -> UInt8[np.ndarray, "h w 3"]:
  return decoding.decode(images[index], size)


def _batch(
  read: Callable[[int], np.ndarray],
  size: tuple[int, int],
  contexts: Int[np.ndarray, " n"],
  index: Int[np.ndarray, " b"],
) -> records.Batch:
  """The rows of the records at `index`, where -1 stands for padding."""
  valid = index >= 0
  image = np.zeros((len(index), *size, 3), np.uint8)
  for row in np.flatnonzero(valid):
    image[row] = read(int(index[row]))
  context = np.where(valid, contexts[index], 0)
  return records.Batch(
    image=image,
    context=np.int32(context),
    valid=np.float32(valid),
    index=index.astype(np.int32),
  )


def _shard(batch_size: int, shard_index: int, shard_count: int) -> slice:
  """The rows of a global batch that are this shard's."""
  if batch_size < 1 or batch_size % shard_count:
    raise ValueError(
      f"Batch size is {batch_size}, which does not divide over {shard_count} hosts. "
      f"Use a multiple of {shard_count}."
    )
  rows = batch_size // shard_count
  return slice(shard_index * rows, (shard_index + 1) * rows)


def _stream(batches: grain.MapDataset, threads: int) -> Iterator[records.Batch]:
  """The batches in order, read ahead by threads; memory holds threads + 1 of them."""
  ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
  iterator = iter(batches.to_iter_dataset(ahead))
  try:
    yield from iterator
  finally:
    iterator.close()
