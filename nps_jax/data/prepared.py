"""Records of the data sets that tfds_loco has prepared, read image by image."""

from collections.abc import Sequence
import functools
import pathlib
from typing import Any

import ml_collections
import tensorflow_datasets as tfds

from nps_jax.data import encoded
from nps_jax.data import folder
from nps_jax.data import listing
from nps_jax.data import records

NAME = "mvtec_loco"
VERSION = "1.0.0"
SPLITS = ("train", "validation", "test")
COMMAND = "python -m nps_jax.data.tfds_loco"


class AsStored(tfds.decode.SkipDecoding):
  """Leaves images encoded, those in a sequence too, which tfds forgets."""

  def decode_batch_example_np(self, serialized_example):
    return serialized_example


def open_all(config: ml_collections.ConfigDict) -> tuple[records.Dataset, ...]:
  """The prepared data sets of all categories that config.data names, in its order.

  Raises:
    ValueError, FileNotFoundError: config.data.root is no folder that `prepare` wrote,
      lacks the category, or is damaged; or config.data.layout is another one.
  """
  if config.layout not in ("auto", "loco"):
    raise ValueError(
      f"config.data.layout is {config.layout!r}, but prepared data are in the layout "
      'loco. Set it to "auto" or "loco", or config.data.source to "folder".'
    )
  root = pathlib.Path(config.root).expanduser()
  categories = [
    place.name
    for place in listing.folders(root / NAME)
    if (place_of(root, place.name) / "dataset_info.json").exists()
  ]
  if not config.root or not categories:
    raise FileNotFoundError(
      f"config.data.root is {config.root!r}, where no data are prepared; it holds "
      f"{listing.contents(root)}. Prepare them first, {COMMAND} --source=SOURCE "
      '--out=DATA_DIR, or read a folder of images with config.data.source "folder".'
    )
  names = folder.choose(root, categories, config.category)
  return tuple(open_category(root, name) for name in names)


def open_category(root: pathlib.Path, category: str) -> records.Dataset:
  """One prepared category; images and masks are read when they are asked for.

  Raises:
    ValueError: it is not what `prepare` wrote.
  """
  place = place_of(root, category)
  try:
    builder = tfds.builder_from_directory(place)
    metadata = dict(builder.info.metadata)
    defects = tuple(records.Defect(**fields) for fields in metadata["defects"])
    missing = [
      str(file)
      for split in SPLITS
      for file in builder.info.splits[split].filepaths
      if not file.exists()
    ]
    if missing:
      raise ValueError(f"missing are {listing.some(missing)}")
    decoders = {"image": AsStored(), "masks": AsStored()}
    images = {
      split: _records(
        builder.as_data_source(split, decoders=decoders),
        place=place,
        split=split,
        entries=metadata["records"][split],
      )
      for split in SPLITS
    }
  except Exception as error:  # tfds and protobuf raise many kinds on damaged files
    raise ValueError(
      f"{place} is damaged ({error}). Remove it and prepare the data anew."
    ) from error
  return records.Dataset(category, "loco", **images, defects=defects)


def place_of(root: pathlib.Path, category: str) -> pathlib.Path:
  """The folder of a prepared category."""
  return root / NAME / category / VERSION


def _records(
  source: Sequence[Any], place: pathlib.Path, split: str, entries: Sequence[Sequence]
) -> tuple[records.Record, ...]:
  """A split's records, whose images and masks read the source.

  Args:
    entries: of each record its id, kind and number of masks.

  Raises:
    ValueError: the source has another number of examples.
  """
  if len(source) != len(entries):
    raise ValueError(f"{split} has {len(source)} examples instead of {len(entries)}")
  in_split = []
  for at, (name, kind, count) in enumerate(entries):
    image = encoded.Stored(
      f"{name} in {place}", functools.partial(_read, source, at, name, mask=None)
    )
    masks = tuple(
      encoded.Stored(
        f"Mask {mask} of {name} in {place}",
        functools.partial(_read, source, at, name, mask=mask),
      )
      for mask in range(count)
    )
    in_split.append(
      records.Record(
        id=name,
        category=name.partition("/")[0],
        split=split,
        kind=kind,
        image=image,
        masks=masks,
      )
    )
  return tuple(in_split)


def _read(source: Sequence[Any], at: int, name: str, mask: int | None) -> bytes:
  """The encoded image of an example, or one of its masks."""
  try:
    example = source[at]
  except Exception as error:  # array_record's kinds are not documented
    raise ValueError(f"its example is damaged: {error}") from error
  if example["id"] != name.encode():
    raise ValueError(f"in its place is {example['id']!r}; prepare the data anew")
  return example["image"] if mask is None else example["masks"][mask]
