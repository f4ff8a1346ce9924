"""How many bits the grey values of 16-bit files have: one number for a data set.

Cameras of 10, 12 or 14 bits write 16-bit files of which they use a part. Read by the
files' range, 12 bits would leave 16 of 256 grey levels.
"""

from collections.abc import Sequence
from concurrent import futures

from absl import logging

from nps_jax.data import decoding
from nps_jax.data import records

USUAL = (8, 10, 12, 14, 16)  # of cameras


def find(images: Sequence[records.Record]) -> int:
  """The fewest usual bits that hold all values of the images; 16 if none is 16-bit.

  What cannot be read is passed over: it is told elsewhere.
  """
  with futures.ThreadPoolExecutor(decoding.CHECK_THREADS) as pool:
    highest = [value for value in pool.map(_highest, images) if value is not None]
  if not highest:
    return USUAL[-1]
  bits = next(bits for bits in USUAL if max(highest) < 2**bits)
  logging.info(
    "%d of %d normal images are 16-bit files, whose highest grey value is %d: read as "
    "%d bits. config.data.bits says otherwise.",
    *(len(highest), len(images), max(highest), bits),
  )
  return bits


def using(data: records.Dataset, bits: int) -> records.Dataset:
  """The data set with its records read so."""
  splits = {
    name: tuple(record._replace(bits=bits) for record in getattr(data, name))
    for name in ("train", "validation", "test")
  }
  return data._replace(**splits)


def _highest(record: records.Record) -> int | None:
  try:
    return decoding.highest(record)
  except ValueError:
    return None
