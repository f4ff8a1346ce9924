"""Finds parts of an image that stand on plain ground; lifts them, fills their place.

Nothing here is learned, and no labels are read: a part is a patch that differs from the
colour around it, with a rim of that one colour (ours). What is lifted is a part's
difference from its ground, so that it can be set down elsewhere without a seam.
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Bool, Float, UInt8
import numpy as np
from PIL import Image
from scipy import ndimage
from scipy import sparse
from scipy.sparse import linalg

SMALLEST, LARGEST = 0.0015, 0.1  # of a part's area, as a share of the image
WINDOWS = (0.12, 0.25)  # of the medians that are the local ground, in image widths
THRESHOLDS = (3, 6, 12, 24)  # in median differences from the ground
FAINTEST = 10.0  # grey levels that always count as ground
PLAIN = 0.35  # largest spread of a part's rim, in differences of the part from it
COARSE = 64  # cells along an image's sides on which medians are taken
RIM = 5  # pixels of plain ground around a place, from which its noise is drawn

Picture = UInt8[np.ndarray, "h w 3"]
Mask = Bool[np.ndarray, "h w"]
Ground = Float[np.ndarray, "h w 3"]


class Piece(NamedTuple):
  """A part that has been lifted from its image, within its bounding box."""

  difference: Float[np.ndarray, "p q 3"]  # from the ground under it, in grey levels
  cover: Float[np.ndarray, "p q"]  # 1 within, falling to 0 at its edge
  mask: Bool[np.ndarray, "p q"]


class Place(NamedTuple):
  """A hole, cut out with some rim, and what the ground is there."""

  box: tuple[slice, slice]
  hole: Bool[np.ndarray, "p q"]
  filling: Float[np.ndarray, "n 3"]  # of the hole's pixels: smooth, without noise
  noise: Float[np.ndarray, "p q 3"]  # of the pixels around it; 0 in the hole


def grounds(image: Picture) -> list[Ground]:
  """The image's ground in each of WINDOWS."""
  return [ground(image, window) for window in WINDOWS]


def find(image: Picture, grounds: Sequence[Ground]) -> list[Mask]:
  """The parts, none of which overlap; none where nothing stands on plain ground."""
  pixels = image.astype(np.float32)
  taken, parts = np.zeros(image.shape[:2], bool), []
  for colours in grounds:
    gap = np.sqrt(np.square(pixels - colours).sum(axis=-1))
    gap = ndimage.gaussian_filter(gap, 1.0)
    for threshold in np.median(gap) * np.array(THRESHOLDS):
      odd = ndimage.binary_opening(gap > max(threshold, FAINTEST))
      labels, _ = ndimage.label(ndimage.binary_fill_holes(odd))
      for label, box in enumerate(ndimage.find_objects(labels), 1):
        part = _part(pixels, labels, label, box)
        if part is not None and not (taken & part).any():
          taken |= part
          parts.append(part)
  return parts


def ground(image: Picture, window: float) -> Ground:
  """The median colour around each pixel, in a window of that share of the width."""
  side = int(window * COARSE) | 1
  size = (COARSE, COARSE)
  small = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))
  median = [ndimage.median_filter(small[..., c], size=side) for c in range(3)]
  whole = Image.fromarray(np.stack(median, axis=-1))
  return np.float32(whole.resize(image.shape[1::-1], Image.Resampling.BILINEAR))


def _part(
  pixels: Float[np.ndarray, "h w 3"],
  labels: np.ndarray,
  label: int,
  box: tuple[slice, slice],
) -> Mask | None:
  """The labelled patch as a mask, if its size and its rim are those of a part."""
  h, w = labels.shape
  area = np.count_nonzero(labels[box] == label) / labels.size
  if not SMALLEST <= area <= LARGEST:
    return None
  reach = max(1, round(0.008 * w))
  grown = _grown(box, 3 * reach + 2)
  if min(side.start for side in grown) < 0 or grown[0].stop > h or grown[1].stop > w:
    return None
  mask = labels[grown] == label
  core = ndimage.binary_dilation(mask, iterations=reach)
  rim = ndimage.binary_dilation(core, iterations=reach) & ~core
  colours = pixels[grown]
  middle = np.median(colours[rim], axis=0)
  contrast = np.sqrt(np.square(colours[mask] - middle).sum(axis=1)).mean()
  spread = np.quantile(np.abs(colours[rim] - middle).mean(axis=1), 0.9)
  if contrast <= FAINTEST or spread >= PLAIN * contrast:
    return None
  whole = np.zeros(labels.shape, bool)
  whole[grown] = mask
  return whole


def _grown(box: tuple[slice, slice], by: int) -> tuple[slice, slice]:
  return tuple(slice(side.start - by, side.stop + by) for side in box)


def place(image: Picture, hole: Mask) -> Place:
  """The hole's surroundings, and the smooth surface that its rim spans.

  The surface is harmonic in each colour: each pixel of the hole is the mean of its four
  neighbours, those of the rim being smoothed first.
  """
  h, w = hole.shape
  (box,) = ndimage.find_objects(hole.astype(int))
  box = tuple(
    slice(max(side.start, 0), min(side.stop, length))
    for side, length in zip(_grown(box, RIM + 1), (h, w), strict=True)
  )
  inside = hole[box]
  colours = image[box].astype(np.float64)
  weight = ndimage.gaussian_filter((~inside).astype(float), 1.5)[..., None]
  seen = np.where(inside[..., None], 0.0, colours)
  smooth = ndimage.gaussian_filter(seen, (1.5, 1.5, 0)) / np.maximum(weight, 1e-3)
  noise = np.where(inside[..., None], 0.0, colours - smooth)
  return Place(box, inside, _harmonic(inside, smooth), noise)


def _harmonic(
  inside: Bool[np.ndarray, "p q"], rim: Float[np.ndarray, "p q 3"]
) -> Float[np.ndarray, "n 3"]:
  """Each inner pixel's value, where all are the means of their neighbours."""
  count = np.count_nonzero(inside)
  index = np.full(inside.shape, -1)
  index[inside] = np.arange(count)
  rows, columns = np.nonzero(inside)
  neighbours, known = np.zeros(count), np.zeros((count, 3))
  pairs = []
  for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0)):
    y, x = rows + down, columns + right
    here = (y >= 0) & (y < inside.shape[0]) & (x >= 0) & (x < inside.shape[1])
    own, y, x = np.flatnonzero(here), y[here], x[here]
    neighbours[own] += 1
    unknown = inside[y, x]
    pairs.append(np.stack([own[unknown], index[y[unknown], x[unknown]]]))
    known[own[~unknown]] += rim[y[~unknown], x[~unknown]]
  links = np.concatenate(pairs, axis=1)
  matrix = sparse.csc_matrix((np.ones(links.shape[1]), tuple(links)), (count, count))
  system = sparse.csc_matrix(sparse.diags(neighbours) - matrix)
  return linalg.spsolve(system, known).reshape(count, 3)


def erase(
  rng: np.random.Generator, image: Picture, part: Mask, margin: int = 3
) -> tuple[Picture, Mask]:
  """The image with ground in the part's place, and that place.

  Args:
    margin: pixels around the part that go with it: its blurred edge.
  """
  hole = ndimage.binary_dilation(part, iterations=margin)
  where = place(image, hole)
  rim = ndimage.binary_dilation(where.hole, iterations=RIM) & ~where.hole
  pool = where.noise[rim]
  pixels = image.astype(np.float64)
  noise = pool[rng.integers(len(pool), size=len(where.filling))]
  pixels[where.box][where.hole] = where.filling + noise
  return as_picture(pixels), hole


def lift(image: Picture, part: Mask, margin: int = 2) -> Piece:
  """The part as its difference from the ground under it."""
  where = place(image, ndimage.binary_dilation(part, iterations=margin + 1))
  colours = image[where.box].astype(np.float64)
  under = colours.copy()
  under[where.hole] = where.filling
  grown = ndimage.binary_dilation(part, iterations=margin)[where.box].astype(float)
  cover = np.clip(ndimage.gaussian_filter(grown, 1.0), 0, 1) * where.hole
  return Piece(colours - under, cover, part[where.box])


def turn(piece: Piece, degrees: float, scale: float) -> Piece:
  """The piece rotated and resized."""

  def changed(values: np.ndarray) -> np.ndarray:
    zoom = (scale, scale, 1)[: values.ndim]
    sized = ndimage.zoom(values.astype(float), zoom, order=1)
    return ndimage.rotate(sized, degrees, axes=(1, 0), order=1)

  cover = np.clip(changed(piece.cover), 0, 1)
  return Piece(changed(piece.difference), cover, changed(piece.mask) > 0.5)


def set_down(
  image: Picture, piece: Piece, centre: tuple[float, float]
) -> tuple[Picture, Mask] | None:
  """The image with the piece there, and what it covers; None if it would stick out."""
  sides = piece.mask.shape
  starts = [int(at - side // 2) for at, side in zip(centre, sides, strict=True)]
  box = tuple(slice(at, at + side) for at, side in zip(starts, sides, strict=True))
  if min(starts) < 0 or box[0].stop > image.shape[0] or box[1].stop > image.shape[1]:
    return None
  pixels = image.astype(np.float64)
  pixels[box] += piece.difference * piece.cover[..., None]
  mask = np.zeros(image.shape[:2], bool)
  mask[box] = piece.mask
  return as_picture(pixels), mask


def free_place(
  rng: np.random.Generator,
  image: Picture,
  parts: Sequence[Mask],
  like: Mask,
  sides: tuple[int, int],
) -> tuple[float, float] | None:
  """A centre at which a piece of these sides has the ground of the part `like`.

  None if none of some hundred places is free.
  """
  busy = ndimage.binary_dilation(np.any(parts, axis=0), iterations=3)
  near = ndimage.binary_dilation(like, iterations=2)
  rim = ndimage.binary_dilation(near, iterations=4) & ~near
  middle = np.median(image[rim], axis=0)
  noise = np.abs(image[rim] - middle).mean()
  same = np.abs(image - middle).mean(axis=-1) < max(3 * noise, FAINTEST)
  free = ndimage.binary_opening(same & ~busy)
  low = [side // 2 + 1 for side in sides]
  high = [length - at for length, at in zip(free.shape, low, strict=True)]
  if any(one >= other for one, other in zip(low, high, strict=True)):
    return None
  for y, x in rng.integers(low, high, (300, 2)):
    top, left = y - sides[0] // 2, x - sides[1] // 2
    if free[top : top + sides[0], left : left + sides[1]].mean() > 0.97:
      return float(y), float(x)
  return None


def as_picture(pixels: Float[np.ndarray, "h w 3"]) -> Picture:
  """The pixels as 8-bit values."""
  return np.uint8(np.rint(np.clip(pixels, 0, 255)))
