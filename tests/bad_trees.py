"""Folders, masks, maps, weights and settings, good and bad; and what a user sees.

`base` is a category "nuts" in LOCO's layout with an anomaly map for each test image.
Each case changes it before its command runs.
"""

from collections.abc import Callable
import json
import pathlib
import pickle
import shutil
from typing import NamedTuple

import bad_images
import numpy as np
from PIL import Image
import tifffile

SIZE = (12, 16)
TRUTH = "data/nuts/ground_truth"
MASK = f"{TRUTH}/logical_anomalies/000/000.png"
TEST = "data/nuts/test"
MAP = "maps/nuts/test/good/000.tiff"
CONFIG = "data/nuts/defects_config.json"
FORMS = ".bmp, .jfif, .jpeg, .jpg, .png, .tif, .tiff, .webp"
DEFECT = {
  "defect_name": "missing",
  "pixel_value": 255,
  "saturation_threshold": 0.5,
  "relative_saturation": True,
}
PASSED = "accepted"


class Case(NamedTuple):
  """A change of the tree, and the message; "accepted" where there is none."""

  title: str
  change: Callable[[pathlib.Path], object]
  sees: str  # ... stands for any text, HERE for the folder of everything
  flags: tuple[str, ...] = ()  # of the command, besides the usual ones


def base(here):
  """The tree in which nothing is wrong."""
  rng = np.random.default_rng(0)
  for kind, count in (("train/good", 4), ("validation/good", 2)):
    for at in range(count):
      save(here / "data/nuts" / kind / f"{at:03d}.png", bad_images.noise(*SIZE))
  for kind in ("good", "logical_anomalies", "structural_anomalies"):
    save(here / TEST / kind / "000.png", bad_images.noise(*SIZE))
    place = here / "maps/nuts/test" / kind / "000.tiff"
    place.parent.mkdir(parents=True)
    tifffile.imwrite(place, rng.normal(size=SIZE).astype(np.float32))
    if kind != "good":
      save(here / TRUTH / kind / "000" / "000.png", mask())
  write(CONFIG, json.dumps([DEFECT]))(here)
  return here


def mask(value=255, size=SIZE):
  found = np.zeros(size, np.uint8)
  found[1:3, 2:5] = value
  return found


def save(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.asarray(pixels)).save(path)


def image(name, pixels=bad_images.RGB):
  """Puts an image there."""
  return lambda here: save(here / name, pixels)


def write(name, content):
  """Puts a file there."""

  def change(here):
    (here / name).parent.mkdir(parents=True, exist_ok=True)
    held = content if isinstance(content, bytes) else content.encode()
    (here / name).write_bytes(held)

  return change


def remove(name):
  """Removes a file or folder."""

  def change(here):
    path = here / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()

  return change


def move(name, other):
  def change(here):
    (here / other).parent.mkdir(parents=True, exist_ok=True)
    (here / name).rename(here / other)

  return change


def cut(name, share=0.6):
  """Leaves a file's first part."""

  def change(here):
    content = (here / name).read_bytes()
    (here / name).write_bytes(content[: int(share * len(content))])

  return change


def both(*changes):
  return lambda here: [change(here) for change in changes]


class Payload:
  """Leaves a mark where it is unpickled."""

  def __init__(self, mark):
    self.mark = mark

  def __reduce__(self):
    return pathlib.Path.touch, (self.mark,)


def pickled(name):
  """Weights whose reading would run code."""

  def change(here):
    (here / name).write_bytes(pickle.dumps(Payload(here / "unpickled"), 4))

  return change


NUTS = "HERE/data/nuts"
OF_MASK = f"HERE/{MASK}"
GONE = "Replace or remove it."
