"""Records to batches: decoded, sharded over hosts, padded, in order."""

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
import functools

from jaxtyping import Int, UInt8
import numpy as np

from nps_jax.data import decoding
from nps_jax.data import records


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
  context = checked(images, contexts)
  rows = shard(batch_size, shard_index, shard_count)
  read = functools.partial(read_image, images, size)

  def load(step: int) -> records.Batch:
    index = np.arange(step * batch_size, (step + 1) * batch_size)[rows]
    return batch(read, size, context, np.where(index < len(images), index, -1))

  return _ahead(load, -(-len(images) // batch_size), threads)


def checked(
  images: Sequence[records.Record], contexts: Sequence[int]
) -> Int[np.ndarray, " n"]:
  """The contexts as an array; ValueError unless each record has one."""
  if len(images) != len(contexts):
    raise ValueError(f"Found {len(contexts)} contexts for {len(images)} records.")
  return np.asarray(contexts, np.int32)


def read_image(
  images: Sequence[records.Record], size: tuple[int, int], index: int
) -> UInt8[np.ndarray, "h w 3"]:
  """One of the images; ValueError if it cannot be read."""
  return decoding.decode(images[index], size)


def batch(
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


def shard(batch_size: int, shard_index: int, shard_count: int) -> slice:
  """The rows of a global batch that are this shard's."""
  if batch_size < 1 or batch_size % shard_count:
    raise ValueError(
      f"Batch size is {batch_size}, which does not divide over {shard_count} hosts. "
      f"Use a multiple of {shard_count}."
    )
  rows = batch_size // shard_count
  return slice(shard_index * rows, (shard_index + 1) * rows)


def _ahead(
  load: Callable[[int], records.Batch], steps: int, threads: int
) -> Iterator[records.Batch]:
  """The steps' batches in order; memory holds threads + 1 of them."""
  waiting = collections.deque()
  with futures.ThreadPoolExecutor(threads) as pool:
    try:
      for step in range(steps):
        waiting.append(pool.submit(load, step))
        if len(waiting) > threads:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for each in waiting:
        each.cancel()
