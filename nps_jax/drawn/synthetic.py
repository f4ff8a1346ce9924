"""Writes drawn products in the layout of MVTec LOCO AD.

python -m nps_jax.drawn.synthetic --out=DIR --categories=tray,bottle --seed=0 --size=256

Normal images vary in pose, light, lens, sensor, colours and sizes; anomalous ones break
a rule of the product (logical) or damage it (structural). The rules mirror LOCO's.
"""

import argparse
from collections.abc import Collection, Iterator, Sequence
import io
import json
import pathlib
import shutil
import tempfile
import types
from typing import NamedTuple
import zlib

from jaxtyping import UInt8
import numpy as np
from PIL import Image

from nps_jax.data import listing
from nps_jax.data import records
from nps_jax.drawn import bag
from nps_jax.drawn import bottle
from nps_jax.drawn import box
from nps_jax.drawn import drawing
from nps_jax.drawn import tray

PRODUCTS = {"tray": tray, "bottle": bottle, "bag": bag, "box": box}
CATEGORIES = tuple(PRODUCTS)
SMALLEST = 32  # pixels, of an image's side


class Counts(NamedTuple):
  """How many images a category gets; of each pair of flaws, a third of `per_flaw`."""

  train: int = 200
  validation: int = 40
  good: int = 60
  per_flaw: int = 15  # images of every single flaw


class Job(NamedTuple):
  """One image to draw, with no flaw, one, or two."""

  split: str
  kind: str
  name: str
  flaws: tuple[str, ...]


class Drawn(NamedTuple):
  """An image, and a mask for each of its flaws."""

  image: UInt8[np.ndarray, "h w 3"]
  masks: list[UInt8[np.ndarray, "h w"]]


def write(
  root: pathlib.Path,
  categories: Sequence[str],
  *,
  seed: int = 0,
  size: int = 256,
  counts: Counts | None = None,
) -> None:
  """Writes each category's folder, whole or not at all; the same seed, the same bytes.

  Raises:
    ValueError: an unknown category, a folder that is there already, or a tiny size.
  """
  if not categories:
    raise ValueError(f"No product was named; there are {', '.join(CATEGORIES)}.")
  if root.exists() and not root.is_dir():
    raise ValueError(f"{root} is a file; expected a folder, new or not.")
  for category in categories:
    if category not in PRODUCTS:
      raise ValueError(
        f"There is no drawn product {category!r}; there are {', '.join(CATEGORIES)}."
        + listing.near([category], CATEGORIES)
      )
    if (root / category).exists():
      raise ValueError(
        f"{root / category} exists already. Remove it, or choose another folder."
      )
  if size < SMALLEST:
    raise ValueError(f"The size is {size} pixels; expected at least {SMALLEST}.")
  root.mkdir(parents=True, exist_ok=True)
  for category in dict.fromkeys(categories):
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{category}.") as folder:
      whole = pathlib.Path(folder) / category
      _write_category(whole, category, seed, size, counts or Counts())
      shutil.move(whole, root / category)


def _write_category(
  folder: pathlib.Path, category: str, seed: int, size: int, counts: Counts
) -> None:
  product = PRODUCTS[category]
  for at, job in enumerate(_jobs(product, counts)):
    drawn = draw(category, product, seed, at, job, size)
    save(folder / job.split / job.kind / f"{job.name}.png", drawn.image)
    for channel, mask in enumerate(drawn.masks):
      place = folder / "ground_truth" / job.kind / job.name
      save(place / f"{channel:03d}.png", mask)
  text = describe(product, size**2)
  (folder / "defects_config.json").write_text(text, encoding="utf-8")


def draw(
  category: str, product: types.ModuleType, seed: int, at: int, job: Job, size: int
) -> Drawn:
  """The image that stands at that place among the category's, and its masks."""
  rng = np.random.default_rng([seed, zlib.crc32(category.encode()), at])
  drawn, pose = product.draw(rng, job.flaws), drawing.random_pose(rng)
  image = drawing.photograph(rng, drawing.paint(drawn, pose, size))
  values = _values(product)
  masks = [
    np.uint8(values[name] * drawing.cover(drawn.flaws[name], pose, size))
    for name in job.flaws
  ]
  return Drawn(image, masks)


def describe(product: types.ModuleType, area: int) -> str:
  """LOCO's defects_config.json, for images of that many pixels."""
  values = _values(product)
  entries = [_entry(flaw, values[flaw.name], area) for flaw in product.FLAWS]
  return json.dumps(entries, indent=2) + "\n"


def _values(product: types.ModuleType) -> dict[str, int]:
  """What a mask has where each flaw is."""
  return {flaw.name: 255 - at for at, flaw in enumerate(product.FLAWS)}


def _jobs(product: types.ModuleType, counts: Counts) -> Iterator[Job]:
  """Every image of a category; its place in this order is part of its seed."""
  for split in ("train", "validation"):
    for at in range(getattr(counts, split)):
      yield Job(split, records.GOOD, name=f"{at:03d}", flaws=())
  for at in range(counts.good):
    yield Job("test", records.GOOD, name=f"{at:03d}", flaws=())
  logical = {flaw.name: flaw.logical for flaw in product.FLAWS}
  for kind, wanted in ((records.LOGICAL, True), (records.STRUCTURAL, False)):
    single = [(name,) for name in logical if logical[name] is wanted]
    double = [pair for pair in product.PAIRS if logical[pair[0]] is wanted]
    flaws = single * counts.per_flaw + double * (counts.per_flaw // 3)
    for at, names in enumerate(flaws):
      yield Job("test", kind, name=f"{at:03d}", flaws=names)


def _entry(flaw: drawing.Flaw, value: int, area: int) -> dict:
  """The flaw's entry of LOCO's defects_config.json."""
  threshold = flaw.saturation if flaw.relative else round(flaw.saturation * area)
  return {
    "defect_name": flaw.name,
    "pixel_value": value,
    "saturation_threshold": threshold,
    "relative_saturation": flaw.relative,
  }


def save(path: pathlib.Path, image: np.ndarray, *, fast: bool = False) -> None:
  """Writes a PNG, and the folders that it lies in; `fast`, as noisy images allow."""
  path.parent.mkdir(parents=True, exist_ok=True)
  buffer = io.BytesIO()
  how = {"compress_type": zlib.Z_HUFFMAN_ONLY} if fast else {}
  Image.fromarray(image).save(buffer, "PNG", **how)
  path.write_bytes(buffer.getvalue())


def main(arguments: Collection[str] | None = None) -> None:
  """Writes drawn products in the layout of MVTec LOCO AD."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--out", required=True, type=pathlib.Path, help="a folder")
  parser.add_argument(
    "--categories", default=",".join(CATEGORIES), help="names, commas between them"
  )
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--size", type=int, default=256, help="pixels, both sides")
  flags = parser.parse_args(arguments)
  names = [name.strip() for name in flags.categories.split(",") if name.strip()]
  try:
    write(flags.out, names, seed=flags.seed, size=flags.size)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"{', '.join(names)} written to {flags.out}")


if __name__ == "__main__":
  main()
