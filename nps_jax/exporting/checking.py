"""Scores images with a run and with its export, and compares the two."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from jaxtyping import UInt8
import ml_collections
import numpy as np

from nps_jax import inference
from nps_jax import ready
from nps_jax import runtime
from nps_jax.data import records
from nps_jax.data import regions
from nps_jax.data import sources

COUNT = 24  # images that are scored both ways
MOST = 1e-3  # by which scores and maps may differ, in units of the threshold
SHIFT = 0.05  # of an image's sides, by which a variation is moved at most
Pixels = UInt8[np.ndarray, "h w 3"]


class Compared(NamedTuple):
  """How far an export is from its run."""

  images: int
  difference: float  # the largest, of scores and maps
  flips: int  # verdicts that are not the same

  @property
  def passed(self) -> bool:
    return self.difference <= MOST and not self.flips


def own_images(run: inference.Run, category: str) -> tuple[records.Record, ...]:
  """The validation and test images that the run was made with.

  Raises:
    ValueError: they are not to be had; says why.
  """
  config = ml_collections.ConfigDict(run.about.config).copy_and_resolve_references()
  if len(run.about.categories) > 1:
    config.data.category = category
  config.data.region = regions.of_run(run.folder, config.data.region)
  try:
    opened = sources.open_all(config.data, config.seed)
    (data,) = sources.renamed(opened, [category])
  except (ValueError, OSError) as error:
    raise ValueError(
      "The run's own images, on which the export is tried, cannot be had: give others "
      f"by --images.\n{error}"
    ) from error
  return (*data.validation, *data.test)


def spread(images: Sequence[records.Record]) -> list[records.Record]:
  """COUNT of the images from first to last; repeated in turn where there are fewer."""
  if len(images) >= COUNT:
    places = np.linspace(0, len(images) - 1, COUNT).astype(int)
  else:
    places = np.arange(COUNT) % len(images)
  return [images[place] for place in places]


def compare(
  scorer: ready.Scorer,
  chosen: Sequence[records.Record],
  decode: Callable[[records.Record], Pixels],
  answers: Callable[[Sequence[Pixels]], Sequence[runtime.Answer]],
  threshold: float,
) -> Compared:
  """Scores images both ways; from the second time on, what repeats is varied.

  Args:
    chosen: records as the scorer knows them.
    decode: the export's way of reading an image.
    answers: the export's answers on what was read.
  """
  rng, difference, flips, seen = np.random.default_rng(0), 0.0, 0, set()
  for start in range(0, len(chosen), scorer.most):
    part = chosen[start : start + scorer.most]
    own, other = [], []
    for record in part:
      pair = scorer.read(record), decode(record)
      if record.id in seen:
        pair = varied(pair, rng)
      seen.add(record.id)
      own.append(pair[0])
      other.append(pair[1])
    for want, have in zip(scorer.score(part, own), answers(other), strict=True):
      gaps = abs(want.score - have.score), float(np.abs(want.map - have.map).max())
      difference = max(difference, *(np.inf if np.isnan(gap) else gap for gap in gaps))
      flips += (want.score > threshold) != have.anomalous
  return Compared(len(chosen), difference, flips)


def varied(
  pair: tuple[Pixels, Pixels], rng: np.random.Generator
) -> tuple[Pixels, Pixels]:
  """The same image, read in two ways, moved a little and in another light."""
  sides = np.array(pair[0].shape[:2])
  move = tuple(int(by) for by in np.rint(rng.uniform(-SHIFT, SHIFT, 2) * sides))
  light = rng.uniform(0.9, 1.1)
  first, second = (
    np.uint8(np.clip(np.roll(pixels, move, (0, 1)) * light, 0, 255)) for pixels in pair
  )
  return first, second
