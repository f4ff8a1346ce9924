"""A run that is ready to score a few images at any moment: placed and compiled."""

from collections.abc import Sequence
import pathlib

import jax
from jaxtyping import UInt8
import numpy as np

from nps_jax import config as settings
from nps_jax import distributed
from nps_jax import inference
from nps_jax.data import decoding
from nps_jax.data import records
from nps_jax.data import regions

ROWS = (1, 4, inference.BATCH)  # of the batches that are compiled


class Scorer:
  """Scores images of one category; its parameters stay on the devices.

  Few images go in a small batch: padding rows cost as much as others.
  """

  def __init__(self, run: inference.Run, category: str):
    """Compiles nothing yet: see `warm`.

    Raises:
      ValueError: CLIP would have to see each image.
    """
    if run.about.config.context.source == "image":
      raise ValueError(
        f'{run.folder} was trained with config.context.source = "image", for which '
        "CLIP must see each image; only `predict --images` does that."
      )
    self.run, self.category = run, category
    self.sizes = sorted({distributed.round_up(rows) for rows in ROWS})
    self._mesh = distributed.mesh(self.sizes[0])
    vectors, rows_of = inference.contexts(run, [_nothing()], category)
    self._context = rows_of[0]
    self._region = regions.of_run(run.folder, run.about.config.data.region)
    priors = jax.tree.map(np.float32, run.calibrations[category].priors)
    self._constant = distributed.put_replicated(
      self._mesh, (run.frozen["encoder"], run.variables, vectors, priors)
    )

  @property
  def most(self) -> int:
    """How many images are scored at once."""
    return self.sizes[-1]

  def warm(self) -> None:
    """Compiles the batches of every size, so that no image waits for that."""
    blank = np.zeros((*settings.image_shape(self.run.about.config), 3), np.uint8)
    for size in self.sizes:
      self.score([_nothing()] * size, [blank] * size)

  def known(self, record: records.Record) -> records.Record:
    """The record as this run reads its kind: grey values' bits, and the region.

    Raises:
      FileNotFoundError: there are regions, and none for this record.
    """
    record = record._replace(bits=self.run.about.config.data.bits)
    if not self._region:
      return record
    (record,) = regions.attach([record], self._region)
    return record

  @property
  def looks_by_name(self) -> bool:
    """Whether each image has a region of its own, by its name."""
    return pathlib.Path(self._region).is_dir() if self._region else False

  def read(self, record: records.Record) -> UInt8[np.ndarray, "h w 3"]:
    """The image of a record that is `known`, at the model's size.

    Raises:
      ValueError: it cannot be read; names it and the reason.
    """
    return decoding.decode(record, settings.image_shape(self.run.about.config))

  def score(
    self,
    images: Sequence[records.Record],
    pixels: Sequence[UInt8[np.ndarray, "h w 3"]],
  ) -> list[inference.Scored]:
    """What the run says of each image.

    Args:
      images: at most `most` of them.
      pixels: of each the image as `read` gives it.
    """
    count = len(images)
    rows = next(size for size in self.sizes if size >= count)
    image = np.zeros((rows, *pixels[0].shape), np.uint8)
    image[:count] = pixels
    batch = records.Batch(
      image=image,
      context=np.full(rows, self._context, np.int32),
      valid=np.float32(np.arange(rows) < count),
      index=np.arange(rows, dtype=np.int32),
    )
    rows_there = distributed.put_rows(self._mesh, batch)
    raw = distributed.gather(self.run.forward(*self._constant, rows_there))
    raw = jax.tree.map(lambda leaf: leaf[:count], raw)
    return list(inference.judge(self.run, images, self.category, raw))


def _nothing() -> records.Record:
  """A record for pixels that come from nowhere."""
  return records.Record(id="", category="", split="test", kind="", image=b"")
