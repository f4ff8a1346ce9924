"""The pictures of a page: an image, and the same under its map, both small."""

import base64
from collections.abc import Sequence
import io
from typing import NamedTuple

from jaxtyping import Bool, Float, Float32, UInt8
import numpy as np
from PIL import Image
from scipy import ndimage

from nps_jax.data import decoding
from nps_jax.data import masks
from nps_jax.data import records
from nps_jax.report import figures
from nps_jax.report import lines

SIDE = 208  # pixels of a picture's longer side
QUALITY = 80  # of its JPEG
OUTLINE = (25, 110, 255)  # colour around what the ground truth marks


class Shot(NamedTuple):
  """One test image, small, and its line of scores.csv."""

  row: lines.Row
  good: bool
  kinds: tuple[str, ...]  # the defects that its masks name, else its test folder
  image: UInt8[np.ndarray, "h w 3"]
  map: Float32[np.ndarray, "h w"]
  truth: Bool[np.ndarray, "h w"] | None  # what any mask marks; None: no masks


def shot(
  record: records.Record,
  full: Float[np.ndarray, "h w"],
  row: lines.Row,
  data: records.Dataset,
) -> Shot:
  """The image, its map and its ground truth, at most SIDE pixels long.

  Args:
    full: the map at the image's own size.

  Raises:
    ValueError: the image or a mask cannot be read.
  """
  factor = min(1.0, SIDE / max(full.shape))
  size = tuple(max(1, round(factor * length)) for length in full.shape[::-1])
  image = Image.fromarray(decoding.decode(record)).resize(size)
  small = Image.fromarray(np.asarray(full, np.float32)).resize(
    size, Image.Resampling.BILINEAR
  )
  truth, names = None, ()
  if data.layout != "plain" and record.masks:
    marked = masks.read(record, data.defects, full.shape)
    names = tuple(dict.fromkeys(marked.names))
    share = Image.fromarray(np.float32(marked.mask(full.shape)))
    truth = np.asarray(share.resize(size, Image.Resampling.BOX)) > 0
  good = record.kind == records.GOOD
  kinds = names or (record.kind,)
  return Shot(row, good, kinds, np.array(image), np.asarray(small), truth)


def pictures(shot: Shot, faint: float, full: float) -> tuple[str, str]:
  """The image, and the same under its map and the truth's outline: JPEG in base64.

  Args:
    faint, full: values of the map where its colour begins, and is strongest.
  """
  heat = figures.overlay(shot.image, shot.map, faint, full)
  if shot.truth is not None:
    heat[ndimage.binary_dilation(shot.truth) & ~shot.truth] = OUTLINE
  return _jpeg(shot.image), _jpeg(heat)


def colours(shots: Sequence[Shot]) -> tuple[float, float]:
  """Where the colour of maps without a scale of their own begins, and is strongest.

  Half of the good images are to look clean, and the highest map to be full.
  """
  good = [float(each.map.max()) for each in shots if each.good]
  highest = max(float(each.map.max()) for each in shots)
  faint = float(np.median(good)) if good else min(float(s.map.min()) for s in shots)
  return faint, max(highest, np.nextafter(faint, np.inf))


def worst_first(shots: Sequence[Shot], limit: float) -> list[Shot]:
  """Mistakes by how far they are from the threshold, then the rest, nearest first."""

  def rank(shot: Shot) -> tuple[bool, float]:
    gap = abs(shot.row["score"] - limit)
    wrong = shot.good == (shot.row["score"] > limit)
    return not wrong, -gap if wrong else gap

  return sorted(shots, key=rank)


def _jpeg(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
  buffer = io.BytesIO()
  Image.fromarray(pixels).save(buffer, "JPEG", quality=QUALITY, optimize=True)
  return base64.b64encode(buffer.getvalue()).decode("ascii")
