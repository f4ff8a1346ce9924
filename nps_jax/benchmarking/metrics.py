"""The evaluation of anyone's maps, from the command to the files."""

import json
import pathlib
import sys
from typing import Any

import numpy as np
from PIL import Image
import tifffile

from nps_jax.benchmarking import timing
from nps_jax.data import records

COUNTS = {records.GOOD: 25, records.LOGICAL: 18, records.STRUCTURAL: 17}
SIDE = 800  # pixels


def evaluate(folder: pathlib.Path) -> dict[str, Any]:
  """Evaluates COUNTS maps of SIDE x SIDE in a process of its own; what that took."""
  write_maps(folder)
  words = (
    "nps_jax.evaluate",
    f"--maps={folder / 'maps'}",
    f"--dataset={folder / 'data'}",
    f"--out={folder / 'results.json'}",
  )
  spent = timing.command([sys.executable, "-m", *words])
  return {
    "part": "metrics",
    "device": "host",
    "image_size": [SIDE, SIDE],
    "images": sum(COUNTS.values()),
    "seconds": {"command": round(spent.seconds, 3)},
    "peak_mib": {"host": round(spent.peak_mib, 1), "device": None},
  }


def write_maps(folder: pathlib.Path) -> None:
  """A LOCO category of COUNTS images with noisy maps; one or two defects each."""
  rng, base = np.random.default_rng(0), folder / "data" / "squares"
  defects = [("half", 255, 0.5, True), ("few", 254, 2000, False)]
  keys = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")
  blank = Image.new("L", (SIDE, SIDE))
  for kind, images in COUNTS.items():
    for index in range(images):
      name = f"{kind}/{index:03d}"
      values = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
      count = 0 if kind == records.GOOD else 1 + index % 2
      for channel, (_, value, *_) in enumerate(defects[:count]):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        top, left = rng.integers(0, SIDE - 120, 2)
        mask[top : top + 120, left : left + 80] = value
        values[mask > 0] += 1.5
        place = base / "ground_truth" / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(place / f"{channel:03d}.png")
      for place in (base / "test" / name, folder / "maps" / "squares" / "test" / name):
        place.parent.mkdir(parents=True, exist_ok=True)
      blank.save(base / "test" / f"{name}.png")
      tifffile.imwrite(folder / "maps" / "squares" / "test" / f"{name}.tiff", values)
  entries = [dict(zip(keys, defect, strict=True)) for defect in defects]
  (base / "defects_config.json").write_text(json.dumps(entries))
