"""Which height and width a model's images are to have: those of the data, reduced."""

from collections.abc import Sequence
import math

from absl import logging
import numpy as np

from nps_jax.data import decoding
from nps_jax.data import records


def find(
  images: Sequence[records.Record], pixels: int, multiple: int
) -> int | tuple[int, int]:
  """A size of about so many pixels, as near as can be to the images' usual shape.

  A side in pixels where that is a square.

  Args:
    multiple: what both sides are multiples of.

  Raises:
    ValueError: an image's header cannot be read.
  """
  sizes = np.array([decoding.original_size(record) for record in images], np.float64)
  ratio = float(np.exp(np.median(np.log(sizes[:, 0] / sizes[:, 1]))))
  h, w = nearest(ratio, pixels, multiple)
  logging.info(
    "Images are scored at %d x %d (height x width), by the shape of the training "
    "images. config.image_size says otherwise.",
    *(h, w),
  )
  return h if h == w else (h, w)


def nearest(ratio: float, pixels: int, multiple: int) -> tuple[int, int]:
  """Two multiples of one number: of the ratio, then of the pixels, the nearest.

  Args:
    ratio: of height to width.
  """
  cells = pixels / multiple**2
  width = max(1.0, cells / max(1.0, math.sqrt(cells * ratio)))
  sides = [{math.floor(side), math.ceil(side)} for side in (cells / width, width)]
  pairs = [(h * multiple, w * multiple) for h in sides[0] for w in sides[1]]

  def error(pair: tuple[int, int]) -> float:
    h, w = pair
    return abs(math.log(h / w / ratio)) + abs(math.log(h * w / pixels))

  return min(sorted(pairs), key=error)
