"""Records to shuffled batches for training, without end."""

from collections.abc import Iterator, Sequence
import functools
import math

from absl import logging
import grain
import numpy as np

from nps_jax.data import reading
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
  context = reading.checked(images, contexts)
  rows = reading.shard(batch_size, shard_index, shard_count)
  read = functools.partial(reading.read_image, images, size)
  if cache and len(images) * math.prod(size) * 3 <= CACHE_LIMIT:
    read = functools.cache(read)
  elif cache:
    logging.info("Training images exceed the cache; each epoch decodes them again.")
  # Grain shuffles epoch e with seed + e, so that neighbouring seeds would share epochs.
  spread = int(np.random.SeedSequence(seed).generate_state(1)[0])
  order = grain.MapDataset.range(len(images)).shuffle(seed=spread).repeat(EPOCHS)

  def load(index: np.ndarray) -> records.Batch:
    return reading.batch(read, size, context, index[rows])

  return _stream(order.batch(batch_size)[start_step:].map(load), threads)


def _stream(batches: grain.MapDataset, threads: int) -> Iterator[records.Batch]:
  """The batches in order, read ahead by threads; memory holds threads + 1 of them."""
  ahead = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 1)
  iterator = iter(batches.to_iter_dataset(ahead))
  try:
    yield from iterator
  finally:
    iterator.close()
