"""From the rates of single images and steps to what each part of a training costs."""

from collections.abc import Sequence
import math
from typing import NamedTuple

import ml_collections

from nps_jax import calibrating
from nps_jax import config as settings
from nps_jax.benchmarking import rates as measuring
from nps_jax.data import pipeline
from nps_jax.models import memory

MIB = 2**20
EVALUATED = 8 / MIB  # MiB that an evaluation holds of each pixel of the test images
PARTS = ("features", "train", "calibrate", "evaluate", "predict")  # the last: an image
TRAINING = PARTS[:-1]


class Counts(NamedTuple):
  """How many images one category has, and how many pixels a test image."""

  category: str
  train: int
  validation: int
  test: int
  pixels: int


class Cost(NamedTuple):
  """Of one part."""

  seconds: float
  host_mib: float
  device_mib: float


class Work(NamedTuple):
  """What the counts of a category make of a config."""

  edited: int  # copies that the modules learn to undo
  moved: int  # copies of training images, of calibration
  judged: int  # copies of held-out images
  again: int  # training images that are looked at as new ones
  pool: int  # patches that the memory's are chosen from
  patches: int  # of the memory


def work(
  config: ml_collections.ConfigDict, count: Counts, rates: measuring.Rates
) -> Work:
  """How much there is to do of one category."""
  each = min(rates.places, max(1, calibrating.POOL // count.train))
  pool = count.train * each
  learned = config.scoring.fusion == "learned"
  return Work(
    edited=copies(count.train, config.train.edits),
    moved=copies(count.train, config.scoring.edits),
    judged=copies(count.validation, config.scoring.edits) if learned else 0,
    again=len(calibrating.rows_again(count.train, count.validation)),
    pool=pool,
    patches=round(config.codebook.memory * pool),
  )


def copies(images: int, wanted: int) -> int:
  """How many edited copies are made of so many images: as many of each."""
  chosen = min(images, wanted)
  return chosen * math.ceil(wanted / chosen) if chosen else 0


def expected(
  config: ml_collections.ConfigDict,
  counts: Sequence[Counts],
  rates: measuring.Rates,
  *,
  overlaps: bool,
) -> dict[str, Cost]:
  """The cost of each part of one training of these categories, and of one image.

  Args:
    overlaps: whether the host reads images while the device computes.
  """
  held = memory_of(config, counts, rates)
  seconds = {
    "features": _features(config, counts, rates, overlaps),
    "train": _train(config, counts, rates, overlaps),
    "calibrate": _calibrate(config, counts, rates, overlaps),
    "evaluate": sum(
      count.test * (_seen(rates.detect, rates, overlaps) + rates.judge + rates.evaluate)
      for count in counts
    ),
    "predict": rates.detect + rates.read + rates.judge + rates.write,
  }
  return {part: Cost(seconds[part], *held[part]) for part in PARTS}


def _seen(compute: float, rates: measuring.Rates, overlaps: bool) -> float:
  """Seconds of an image that is read and computed on."""
  return max(compute, rates.read) if overlaps else compute + rates.read


def is_cached(
  config: ml_collections.ConfigDict, counts: Sequence[Counts], rates: measuring.Rates
) -> bool:
  """Whether the encoder's features are kept during the training."""
  return _kept(config, counts, rates) <= config.train.feature_cache * 1024


def _kept(
  config: ml_collections.ConfigDict, counts: Sequence[Counts], rates: measuring.Rates
) -> float:
  """MiB of all their features."""
  seen = sum(count.train + work(config, count, rates).edited for count in counts)
  return seen * rates.kept


def _features(
  config: ml_collections.ConfigDict,
  counts: Sequence[Counts],
  rates: measuring.Rates,
  overlaps: bool,
) -> float:
  """Seconds of checking all images, editing some, and the encoder's features."""
  seconds = 0.0
  for count in counts:
    edited = work(config, count, rates).edited
    files = count.train + count.validation + count.test
    seconds += files * rates.read
    seconds += min(count.train, edited) * rates.survey + edited * rates.edit
    if is_cached(config, counts, rates):
      seconds += (count.train + edited) * _seen(rates.encode, rates, overlaps)
  return seconds + rates.compile_encoder * is_cached(config, counts, rates)


def _train(
  config: ml_collections.ConfigDict,
  counts: Sequence[Counts],
  rates: measuring.Rates,
  overlaps: bool,
) -> float:
  """Seconds of the steps; each image is read once for each of the two streams."""
  steps, rows = config.train.steps, config.train.batch_size
  step, images = rates.step, sum(count.train for count in counts)
  if not is_cached(config, counts, rates):
    step += 2 * rows * rates.encode
  edited = sum(work(config, count, rates).edited for count in counts)
  read = (min(images + edited, steps * rows) + min(images, steps * rows)) * rates.read
  return rates.compile_step + (
    max(steps * step, read) if overlaps else steps * step + read
  )


def _calibrate(
  config: ml_collections.ConfigDict,
  counts: Sequence[Counts],
  rates: measuring.Rates,
  overlaps: bool,
) -> float:
  """Seconds of the priors, the statistics and the scales."""
  seconds = 2 * (rates.compile_encoder + rates.compile_detector)
  for count in counts:
    there = work(config, count, rates)
    seconds += count.train * _seen(rates.encode, rates, overlaps)
    seconds += there.patches * there.pool / rates.pool * rates.choose
    seconds += there.patches * rates.remember + rates.learn
    seconds += (count.train + there.moved) * _seen(rates.count, rates, overlaps)
    judged = count.validation + there.judged + there.again
    seconds += judged * _seen(rates.detect, rates, overlaps)
    edited = min(count.validation, there.judged)
    seconds += edited * rates.survey + there.judged * rates.edit
    if config.scoring.edits != config.train.edits:  # else they are the training's
      seconds += min(count.train, there.moved) * rates.survey
      seconds += there.moved * rates.edit
    seconds += rates.gaussians + judged * rates.fit
  return seconds


def memory_of(
  config: ml_collections.ConfigDict, counts: Sequence[Counts], rates: measuring.Rates
) -> dict[str, tuple[float, float]]:
  """MiB that each part holds at its highest: of the host and of a device.

  Where the device has no memory of its own, both are the same figure.
  """
  there = [work(config, count, rates) for count in counts]
  pixels = math.prod(settings.image_shape(config)) * 3 / MIB
  images = sum(count.train for count in counts)
  edited = sum(part.edited for part in there)
  kept = _kept(config, counts, rates) if is_cached(config, counts, rates) else 0.0
  decoded = min((images + edited) * pixels, pipeline.CACHE_LIMIT / MIB)
  pool = max(part.pool for part in there)
  patches = pool * rates.patch
  # The pool, once more joined, and in float32 to be projected; the projection, twice.
  chosen = 4 * patches + pool * memory.PROJECTED * 8 / MIB
  judged = max(
    count.validation + part.judged for count, part in zip(counts, there, strict=True)
  )
  scored = 4 * judged * rates.cells  # joined, and in float32
  remembered = max(part.patches for part in there) * rates.patch * 2  # in float32
  evaluated = max(count.test * count.pixels for count in counts) * EVALUATED
  weights = rates.state + rates.working
  host = {
    "features": 2 * kept + edited * 2 * pixels,
    "train": decoded,
    "calibrate": max(chosen, scored),
    "evaluate": evaluated + remembered,
    "predict": remembered,
  }
  device = {
    "features": kept + weights,
    "train": kept + weights,
    "calibrate": remembered + weights,
    "evaluate": remembered + weights,
    "predict": remembered + weights,
  }
  if rates.own_memory:
    return {part: (rates.base + host[part], device[part]) for part in PARTS}
  both = {part: rates.base + host[part] + device[part] for part in PARTS}
  return {part: (both[part], both[part]) for part in PARTS}
