"""What the modules are trained on: normal images, and edited copies to undo."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Bool, Int
import ml_collections
import numpy as np

from nps_jax import config as settings
from nps_jax import edits
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import records


class Copies(NamedTuple):
  """Edited copies of records' images, as records again."""

  records: tuple[records.Record, ...]
  sources: Int[np.ndarray, " e"]  # which of the records each is a copy of
  kinds: tuple[str, ...]
  masks: Bool[np.ndarray, "e h w"]  # what was changed


class Lessons(NamedTuple):
  """What the modules see, and what they are to rebuild from it: normal images.

  First each training image as it is, then edited copies of them.
  """

  seen: tuple[records.Record, ...]
  normal: tuple[records.Record, ...]
  home: Int[np.ndarray, " n"]  # the normal image's position among all
  contexts: tuple[int, ...]  # its category


def copies(
  images: Sequence[records.Record], size: tuple[int, int], count: int, seed: int
) -> Copies:
  """About `count` edited copies of the records' images, at this size.

  As many of each image; where there are more images than that, of a random choice.
  None where no edit fits any of them.
  """
  rng = np.random.default_rng(seed)
  chosen = np.sort(rng.permutation(len(images))[:count])
  pixels = [decoding.decode(images[index], size) for index in chosen]
  made = edits.make(pixels, -(-count // len(chosen)), seed)
  sources = chosen[np.array([edit.source for edit in made], int)]
  inside = {at: decoding.region_at(images[at], size) for at in chosen.tolist()}
  made, sources = _within(made, sources, pixels, inside)
  edited = tuple(
    images[source]._replace(
      id=f"{images[source].id} ({edit.kind} {number})",
      image=encoded.png(edit.image),
      region=None,  # what lies outside of it is painted over already
    )
    for number, (source, edit) in enumerate(zip(sources, made, strict=True))
  )
  masks = np.array([edit.mask for edit in made], bool).reshape(-1, *size)
  return Copies(edited, sources, tuple(edit.kind for edit in made), masks)


def _within(
  made: Sequence[edits.Edit],
  sources: Int[np.ndarray, " e"],
  pixels: Sequence[edits.Picture],
  inside: Mapping[int, Bool[np.ndarray, "h w"] | None],
) -> tuple[list[edits.Edit], Int[np.ndarray, " k"]]:
  """The edits, with no change outside of their images' regions; some go entirely.

  Args:
    sources: the image that each edit is of, as `inside` knows it.
    pixels: what the edits were made of.
  """
  kept, rows = [], []
  for row, (edit, source) in enumerate(zip(made, sources.tolist(), strict=True)):
    region = inside[source]
    if region is not None:
      image = np.where(region[..., None], edit.image, pixels[edit.source])
      edit = edit._replace(image=image, mask=edit.mask & region)  # noqa: PLW2901
    if region is None or edit.mask.mean() >= edits.SMALLEST:
      kept.append(edit)
      rows.append(row)
  return kept, sources[np.array(rows, int)]


Copier = Callable[[Sequence[records.Record], tuple[int, int], int, int], Copies]


def prepare(
  config: ml_collections.FrozenConfigDict,
  datasets: Sequence[records.Dataset],
  copier: Copier = copies,
) -> Lessons:
  """The training images, and config.train.edits edited copies of each category's."""
  seen, home, contexts, size = [], [], [], settings.image_shape(config)
  for category, data in enumerate(datasets):
    home += range(len(seen), len(seen) + len(data.train))
    seen += data.train
    contexts += [category] * len(data.train)
  for category, data in enumerate(datasets if config.train.edits else ()):
    edited = copier(data.train, size, config.train.edits, config.seed)
    home += (contexts.index(category) + edited.sources).tolist()
    seen += edited.records
    contexts += [category] * len(edited.records)
  normal = tuple(seen[index] for index in home)
  return Lessons(tuple(seen), normal, np.int32(home), tuple(contexts))
