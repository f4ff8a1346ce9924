"""Anomaly maps from any method, one file for each test image."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
import csv
import itertools
import math
import pathlib

from jaxtyping import Float
import numpy as np
import tifffile

from nps_jax.data import decoding
from nps_jax.data import listing
from nps_jax.data import records

SUFFIXES = (".tiff", ".tif", ".npy")
AHEAD = 4  # maps read before they are asked for: disk and decompression leave the lock


def judged(
  folder: pathlib.Path,
  dataset: records.Dataset,
  given: Mapping[str, float] | None = None,
) -> Iterator[tuple[records.Record, Float[np.ndarray, "h w"], dict[str, object]]]:
  """The test records with their maps, and a line each: id, file, score and map_max.

  A map is `folder`/<category>/test/<kind>/<id>.tiff, or .tif or .npy: real numbers at
  the size of its image, higher where it is more anomalous.

  Args:
    given: image scores by id; without them a score is the map's maximum.

  Raises:
    FileNotFoundError: some images have no map; counts and lists them.
    ValueError: an image has two maps; while iterating, a map that cannot be read, has
      another size than its image, or holds NaN or infinity.
  """
  paths = [_find(folder, record) for record in dataset.test]
  missing = [
    f"{folder / record.id}{SUFFIXES[0]}"
    for record, path in zip(dataset.test, paths, strict=True)
    if path is None
  ]
  if missing:
    raise FileNotFoundError(
      f"{len(missing)} of the {len(paths)} test images of {dataset.category} have no "
      f"anomaly map; missing are {listing.some(missing)} (or "
      f"{', '.join(SUFFIXES[1:])}). {folder} holds {listing.contents(folder)}."
    )
  return _stream(dataset.test, paths, given)


def read_scores(
  path: pathlib.Path, datasets: Sequence[records.Dataset]
) -> dict[str, float]:
  """The image scores of a CSV file with the columns id and score, by id.

  Raises:
    ValueError: it cannot be read, lacks a column or a test image, has an image twice,
      or a score is no finite number.
  """
  try:
    with path.open(encoding="utf-8-sig", newline="") as file:
      rows = list(csv.DictReader(file))
  except (OSError, ValueError, csv.Error) as error:
    raise ValueError(f"--scores={path} cannot be read: {error}") from error
  if not rows or not {"id", "score"} <= set(rows[0]):
    raise ValueError(
      f"--scores={path} needs the columns id and score, a line for each test image; it "
      f"has {', '.join(rows[0]) if rows else 'no line'}."
    )
  scores: dict[str, float] = {}
  for row in rows:
    try:
      value = float(row["score"])
    except (TypeError, ValueError):
      value = math.nan
    if not math.isfinite(value) or row["id"] in scores:
      problem = "is there twice" if row["id"] in scores else f"has {row['score']!r}"
      raise ValueError(
        f"--scores={path}: {row['id']} {problem}; expected one finite number."
      )
    scores[row["id"]] = value
  wanted = [record.id for data in datasets for record in data.test]
  if missing := [name for name in wanted if name not in scores]:
    raise ValueError(
      f"--scores={path} lacks {len(missing)} of {len(wanted)} test images: "
      f"{listing.some(missing)}. It has {listing.some(list(scores))}."
    )
  return scores


def read(path: pathlib.Path, size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
  """One map, in its own precision; whole numbers become floats.

  Args:
    size: height and width that it must have.

  Raises:
    ValueError: it cannot be read, has another size, or holds NaN or infinity.
  """
  try:
    if path.suffix.lower() == ".npy":
      values = np.load(path, allow_pickle=False)
    else:
      values = tifffile.imread(path)
  except Exception as error:  # tifffile raises many kinds on damaged files
    raise ValueError(f"{path} cannot be read as an anomaly map: {error}") from error
  if values.dtype.kind not in "fiu":
    raise ValueError(f"{path} holds {values.dtype}; an anomaly map holds real numbers.")
  if values.shape != size:
    raise ValueError(
      f"{path} has shape {values.shape}; its image is {size[0]} x {size[1]} (height x "
      "width), and a map must be of the image's size."
    )
  if not np.isfinite(values).all():
    raise ValueError(f"{path} holds NaN or infinity; all scores must be finite.")
  return values.astype(np.result_type(values, np.float16), copy=False)


def _find(folder: pathlib.Path, record: records.Record) -> pathlib.Path | None:
  paths = [
    path for suffix in SUFFIXES if (path := folder / f"{record.id}{suffix}").is_file()
  ]
  if len(paths) > 1:
    raise ValueError(
      f"{record.id} has {len(paths)} anomaly maps: {', '.join(map(str, paths))}. "
      "Leave one."
    )
  return paths[0] if paths else None


def _stream(
  test: Sequence[records.Record],
  paths: Sequence[pathlib.Path],
  given: Mapping[str, float] | None,
) -> Iterator[tuple[records.Record, Float[np.ndarray, "h w"], dict[str, object]]]:
  def load(record: records.Record, path: pathlib.Path):
    values = read(path, decoding.original_size(record))
    highest = float(values.max())
    score = highest if given is None else given[record.id]
    row = {"id": record.id, "file": str(record.image), "score": score}
    return record, values, row | {"map_max": highest}

  with futures.ThreadPoolExecutor(AHEAD) as pool:
    loads = (
      pool.submit(load, record, path) for record, path in zip(test, paths, strict=True)
    )
    waiting = list(itertools.islice(loads, AHEAD))
    while waiting:
      yield waiting.pop(0).result()
      waiting += itertools.islice(loads, 1)
