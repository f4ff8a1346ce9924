"""Data sets whose publishers have other folders, brought into those of MVTec AD.

Masks are written anew as 0 and 255: some have a level for each of several defects.
"""

import csv
import pathlib
import shutil

import numpy as np
from PIL import Image

from nps_jax.data import encoded
from nps_jax.data import naming

BAD, GOOD = "bad", "good"  # kinds
COLUMNS = ("object", "split", "label", "image", "mask")
NORMAL = "normal"  # a label
LABEL = "_label.bmp"  # ends the name of a mask
EVERY = 5  # which items' normal images are tested with


def visa(root: pathlib.Path) -> None:
  """Splits VisA as its own split_csv/1cls.csv says.

  Raises:
    ValueError: the table, or what it names, is not as expected.
  """
  table = root / "split_csv" / "1cls.csv"
  try:
    with table.open(encoding="utf-8", newline="") as file:
      rows = list(csv.DictReader(file))
  except OSError as error:
    raise ValueError(f"{table.name} is not in the archive ({error}).") from error
  if not rows or not set(COLUMNS) <= set(rows[0]):
    raise ValueError(f"{table.name} has not the columns {', '.join(COLUMNS)}.")
  for row in rows:
    kind = GOOD if row["label"] == NORMAL else BAD
    image = _within(root, row["image"])
    if kind == BAD:
      mask = _within(root, row["mask"])
      _binary(mask, root / row["object"] / naming.TRUTH / kind / f"{image.stem}.png")
      mask.unlink()
    _move(image, root / row["object"] / row["split"] / kind / image.name)
  for place in {root / row["object"] / "Data" for row in rows}:
    if not any(path.is_file() for path in place.rglob("*")):
      shutil.rmtree(place, ignore_errors=True)


def kolektor_sdd(root: pathlib.Path) -> None:
  """Splits KolektorSDD: images with a defect, and every fifth item's others, are tests.

  The publisher splits for a training with defects only, so this split is ours. An
  item's images are alike, and stay together.

  Raises:
    ValueError: an image has no mask beside it, or there are no images.
  """
  category = root / "kolektor_sdd"
  items = sorted(path for path in root.iterdir() if path.is_dir() and path != category)
  for at, item in enumerate(items):
    for image in sorted(item.glob("*.jpg")):
      mask = image.with_name(image.stem + LABEL)
      if not mask.is_file():
        raise ValueError(f"{item.name}/{image.name} has no {mask.name} beside it.")
      name = f"{item.name}_{image.stem}"
      truth = category / naming.TRUTH / BAD / f"{name}.png"
      bad = _binary(mask, truth)
      split = "test" if bad or (at + 1) % EVERY == 0 else "train"
      _move(image, category / split / (BAD if bad else GOOD) / f"{name}.jpg")
      mask.unlink()
    if not any(item.iterdir()):
      item.rmdir()
  if not category.is_dir():
    raise ValueError("There are no folders of items (kos01, ...) with images in them.")


def _within(root: pathlib.Path, name: str) -> pathlib.Path:
  """The file of that name below the root; ValueError if there is none."""
  path = root / name
  if not name or not path.resolve().is_relative_to(root.resolve()):
    raise ValueError(f"{name!r} is named, which is no file of the archive.")
  if not path.is_file():
    raise ValueError(f"{name} is named, and is not in the archive.")
  return path


def _move(image: pathlib.Path, place: pathlib.Path) -> None:
  """Moves the image to a place that is free; ValueError if it is not."""
  if place.exists():
    raise ValueError(f"Two images are to be {place.name} in {place.parent}.")
  place.parent.mkdir(parents=True, exist_ok=True)
  image.rename(place)


def _binary(mask: pathlib.Path, place: pathlib.Path) -> bool:
  """Writes what the mask marks, unless it is nothing; whether it is something.

  Raises:
    ValueError: the mask cannot be read.
  """
  try:
    with Image.open(mask) as image:
      marked = np.asarray(image) != 0
  except OSError as error:
    raise ValueError(f"{mask.name} cannot be read ({error}).") from error
  marked = marked.any(axis=2) if marked.ndim == 3 else marked
  if not marked.any():
    return False
  place.parent.mkdir(parents=True, exist_ok=True)
  levels = np.uint8(255) * marked[:, :, None]
  place.write_bytes(encoded.png(np.repeat(levels, 3, axis=2)))
  return True
