"""Writes five drawn products with the sizes and counts of MVTec LOCO AD, in its layout.

python -m nps_jax.drawn.rehearsal --out=DIR [--share=0.02]

To rehearse at full size what is to run on LOCO itself: 3651 images of 800 x 1600 to
1700 x 1000 pixels, about 7 GB. They are drawn squarely at SIDE pixels and enlarged to
their size, where the sensor's noise is added; the masks, one for each defect, are
enlarged alike. Nothing about detection on LOCO can be read from them.
"""

import argparse
from collections.abc import Collection, Iterator
import concurrent.futures
import itertools
import math
import multiprocessing
import pathlib
import shutil
import tempfile
import types
from typing import NamedTuple

from jaxtyping import UInt8
import numpy as np
from PIL import Image

from nps_jax.data import records
from nps_jax.drawn import bag
from nps_jax.drawn import bottle
from nps_jax.drawn import box
from nps_jax.drawn import synthetic
from nps_jax.drawn import tray

SIDE = 512  # pixels at which the products are drawn
NOISE = 1  # most that the sensor's noise adds at full size, or takes, in grey levels


class Product(NamedTuple):
  """A drawn product in the place of one of LOCO's: its images' size and numbers."""

  drawn: types.ModuleType
  size: tuple[int, int]  # height and width
  train: int
  validation: int
  good: int
  logical: int
  structural: int


PRODUCTS = {
  "box": Product(box, (1280, 1600), 351, 62, 102, 83, 90),  # breakfast_box
  "bottle": Product(bottle, (1600, 800), 335, 54, 94, 142, 94),  # juice_bottle
  "tray": Product(tray, (1000, 1700), 372, 69, 138, 91, 81),  # pushpins
  "bag": Product(bag, (1100, 1600), 360, 60, 122, 137, 82),  # screw_bag
  # splicing_connectors: other trays, twice as wide as high
  "tray_wide": Product(tray, (850, 1700), 360, 60, 119, 108, 85),
}


def write(
  root: pathlib.Path, *, share: float = 1.0, seed: int = 0, processes: int = 2
) -> list[str]:
  """Writes the products that are not there yet, each whole or not at all; their names.

  Args:
    share: of LOCO's counts, of each at least 2; 1: all.

  Raises:
    ValueError: the root is a file, or the share is not in (0, 1].
  """
  if root.exists() and not root.is_dir():
    raise ValueError(f"{root} is a file; expected a folder, new or not.")
  if not 0 < share <= 1:
    raise ValueError(f"--share is {share}; expected more than 0 and at most 1.")
  root.mkdir(parents=True, exist_ok=True)
  missing = [name for name in PRODUCTS if not (root / name).exists()]
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
    for name in missing:
      with tempfile.TemporaryDirectory(dir=root, prefix=f".{name}.") as folder:
        whole, jobs = pathlib.Path(folder) / name, list(_jobs(PRODUCTS[name], share))
        repeat = (itertools.repeat(value) for value in (whole, name, seed))
        work = pool.map(_write, *repeat, itertools.count(), jobs, chunksize=8)
        for _ in work:
          pass  # what one of them raises is raised here
        _describe(whole, PRODUCTS[name])
        shutil.move(whole, root / name)
  return missing


def _jobs(product: Product, share: float) -> Iterator[synthetic.Job]:
  """Every image of a product; of each kind three of every flaw to one of each pair."""

  def count(split: str) -> int:
    return max(2, round(share * getattr(product, split)))

  for split, folder in (("train", "train"), ("validation", "validation")):
    for at in range(count(split)):
      yield synthetic.Job(folder, records.GOOD, f"{at:03d}", flaws=())
  for at in range(count("good")):
    yield synthetic.Job("test", records.GOOD, f"{at:03d}", flaws=())
  logical = {flaw.name: flaw.logical for flaw in product.drawn.FLAWS}
  for kind, split in ((records.LOGICAL, "logical"), (records.STRUCTURAL, "structural")):
    wanted = split == "logical"
    single = [(name,) for name in logical if logical[name] is wanted]
    double = [pair for pair in product.drawn.PAIRS if logical[pair[0]] is wanted]
    flaws = itertools.cycle(double + single * 3)
    for at, names in enumerate(itertools.islice(flaws, count(split))):
      yield synthetic.Job("test", kind, f"{at:03d}", names)


def _write(
  folder: pathlib.Path, name: str, seed: int, at: int, job: synthetic.Job
) -> None:
  """Draws one image and its masks, and writes them at full size."""
  product = PRODUCTS[name]
  drawn = synthetic.draw(name, product.drawn, seed, at, job, SIDE)
  rng = np.random.default_rng([seed, at])
  place = folder / job.split / job.kind / f"{job.name}.png"
  synthetic.save(place, _enlarged(rng, drawn.image, product.size), fast=True)
  for channel, mask in enumerate(drawn.masks):
    large = Image.fromarray(mask).resize(product.size[::-1], Image.Resampling.NEAREST)
    place = folder / "ground_truth" / job.kind / job.name / f"{channel:03d}.png"
    synthetic.save(place, np.asarray(large))


def _enlarged(
  rng: np.random.Generator, image: UInt8[np.ndarray, "_h _w 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
  """The image at its full size, with a sensor's noise there."""
  large = Image.fromarray(image).resize(size[::-1], Image.Resampling.BICUBIC)
  noise = rng.integers(-NOISE, NOISE, (*size, 3), np.int8, endpoint=True)
  return np.uint8(np.clip(np.asarray(large, np.int16) + noise, 0, 255))


def _describe(folder: pathlib.Path, product: Product) -> None:
  """Writes defects_config.json for the full size."""
  entries = synthetic.describe(product.drawn, math.prod(product.size))
  (folder / "defects_config.json").write_text(entries, encoding="utf-8")


def main(arguments: Collection[str] | None = None) -> None:
  """Writes drawn products with the sizes and counts of MVTec LOCO AD."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--out", required=True, type=pathlib.Path, help="a folder")
  parser.add_argument("--share", type=float, default=1.0, help="of LOCO's counts")
  parser.add_argument("--seed", type=int, default=0)
  flags = parser.parse_args(arguments)
  try:
    written = write(flags.out, share=flags.share, seed=flags.seed)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"{', '.join(written) or 'Nothing more'} written to {flags.out}")


if __name__ == "__main__":
  main()
