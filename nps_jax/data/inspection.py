"""What a data folder holds, as a person would look through it."""

import collections
from collections.abc import Iterable, Sequence
from concurrent import futures
import hashlib
import pathlib
from typing import Any

from PIL import Image

from nps_jax.data import checking
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import folder
from nps_jax.data import listing
from nps_jax.data import records

FEW = 40  # normal images, below which results vary much from one choice to another


def look(data: records.Dataset) -> dict[str, Any]:
  """What one category holds, ready for JSON: counts, forms, copies."""
  images = [*data.train, *data.validation, *data.test]
  with futures.ThreadPoolExecutor(decoding.CHECK_THREADS) as pool:
    forms = list(pool.map(_form, images))
  counts = collections.Counter(
    record.split if record.split != "test" else f"test/{record.kind}"
    for record in images
  )
  return {
    "category": data.category,
    "layout": data.layout,
    "images": dict(counts),
    "masks": sum(len(record.masks) for record in images),
    "sizes": _ranked(form.get("size") for form in forms),
    "pixels": _ranked(form.get("pixels") for form in forms),
    "bits": images[0].bits if images else None,
    "copies": copies(images),
  }


def _form(record: records.Record) -> dict[str, str]:
  """The image's size, and its file's form and pixels, by its header."""
  try:
    height, width = decoding.original_size(record)
    with encoded.opened(record.image) as file, Image.open(file) as image:
      return {"size": f"{width} x {height}", "pixels": f"{image.format} {image.mode}"}
  except (ValueError, OSError):
    return {}


def _ranked(names: Iterable[str | None]) -> dict[str, int]:
  """How often each name occurs, the most frequent first."""
  return dict(collections.Counter(name for name in names if name).most_common())


def copies(images: Sequence[records.Record]) -> list[list[str]]:
  """The ids of images whose files are the same, group by group."""

  def digest(record: records.Record) -> str:
    try:
      with encoded.opened(record.image) as file:
        return hashlib.sha256(file.read()).hexdigest()
    except (ValueError, OSError):
      return record.id  # told elsewhere

  groups = collections.defaultdict(list)
  with futures.ThreadPoolExecutor(decoding.CHECK_THREADS) as pool:
    for record, content in zip(images, pool.map(digest, images), strict=True):
      groups[content].append(record.id)
  return [group for group in groups.values() if len(group) > 1]


def ignored(root: pathlib.Path, data: records.Dataset) -> dict[str, str]:
  """By folder of the category, how many files of which forms are not read."""
  place = folder.place_of(root, data.category)
  used = {place / "defects_config.json"}
  for record in (*data.train, *data.validation, *data.test):
    files = (record.image, *record.masks)
    used |= {each for each in files if isinstance(each, pathlib.Path)}
  left = collections.defaultdict(list)
  for path in listing.walk(place):
    if path not in used:
      left[path.parent.relative_to(place).as_posix()].append(path)
  return {
    name: f"{len(paths)} ({listing.suffixes(paths)})" for name, paths in left.items()
  }


def examine(datasets: Sequence[records.Dataset]) -> checking.Odd:
  """What is wrong with all images and masks, or odd."""
  defects = {data.category: data.defects for data in datasets}
  return checking.examine(checking.all_records(datasets), defects)


def problems(datasets: Sequence[records.Dataset], odd: checking.Odd) -> list[str]:
  """What would end a training of them, each with what to do."""
  texts = list(odd.bad)
  if 2 * len(odd.inverted) > sum(len(r.masks) for d in datasets for r in d.test) > 0:
    texts.append(
      f"most masks look inverted: {listing.some(odd.inverted)}. Anomalies must be the "
      "brighter level."
    )
  try:
    checking.check_counts(datasets)
  except ValueError as error:
    texts.append(str(error))
  return texts


def remarks(
  datasets: Sequence[records.Dataset], seen: Sequence[dict], odd: checking.Odd
) -> list[str]:
  """What is odd, though a training goes on with it.

  Args:
    seen: what `look` has of each data set.
  """
  texts = []
  for data, about in zip(datasets, seen, strict=True):
    name, normal = data.category, len(data.train) + len(data.validation)
    if normal < FEW:
      texts.append(
        f"{name} has {normal} normal images; below {FEW} scores and threshold vary "
        "much with the choice of them. Add images."
      )
    across = [
      group
      for group in about["copies"]
      if len({identity.split("/")[1] == "test" for identity in group}) == 2
    ]
    if across:
      texts.append(
        f"{name}: {len(across)} test images are copies of normal ones that are learned "
        f"from, such as {across[0][0]} and {across[0][-1]}. Remove them from the test."
      )
    inside = len(about["copies"]) - len(across)
    if inside:
      texts.append(f"{name}: {inside} images are there more than once.")
    if len(about["sizes"]) > 1:
      usual, *others = about["sizes"]
      count = sum(about["sizes"][size] for size in others)
      texts.append(
        f"{name}: {count} images are not of the usual size of {usual}, but "
        f"{listing.some(others)}. All are squeezed to config.image_size."
      )
    if data.test and not any(record.kind == records.GOOD for record in data.test):
      texts.append(
        f"{name} has no normal test images, so no AUROC. Add some as test/good."
      )
    if not data.test:
      texts.append(f"{name} has no test images: nothing will be evaluated.")
  if odd.plain:
    texts.append(
      f"of one colour all over are {listing.some(odd.plain)}. Did the camera fail? "
      "Remove them."
    )
  if odd.wide:
    texts.append(
      f"masks of more than half of their image: {listing.some(odd.wide)}. Look whether "
      "they are inverted: white is the anomaly."
    )
  return texts
