"""What the modules are trained on: normal images, and edited copies to undo."""

from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Int
import ml_collections
import numpy as np

from nps_jax import edits
from nps_jax.data import records


class Lessons(NamedTuple):
  """What the modules see, and what they are to rebuild from it: normal images.

  First each training image as it is, then edited copies of them.
  """

  seen: tuple[records.Record, ...]
  normal: tuple[records.Record, ...]
  home: Int[np.ndarray, " n"]  # the normal image's position among all
  contexts: tuple[int, ...]  # its category


def prepare(
  config: ml_collections.FrozenConfigDict, datasets: Sequence[records.Dataset]
) -> Lessons:
  """The training images, and config.train.edits edited copies of each category's."""
  seen, home, contexts = [], [], []
  for category, data in enumerate(datasets):
    home += range(len(seen), len(seen) + len(data.train))
    seen += data.train
    contexts += [category] * len(data.train)
  for category, data in enumerate(datasets if config.train.edits else ()):
    copies = edits.copies(
      data.train, config.image_size, config.train.edits, config.seed
    )
    home += (contexts.index(category) + copies.sources).tolist()
    seen += copies.records
    contexts += [category] * len(copies.records)
  normal = tuple(seen[index] for index in home)
  return Lessons(tuple(seen), normal, np.int32(home), tuple(contexts))
