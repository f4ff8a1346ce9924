"""Time and memory of the project's parts on this machine.

python -m nps_jax.benchmark metrics
"""

import argparse
from collections.abc import Sequence
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from PIL import Image
import tifffile

from nps_jax.data import records

COUNTS = {records.GOOD: 25, records.LOGICAL: 18, records.STRUCTURAL: 17}
SIDE = 800  # pixels


def metrics(folder: pathlib.Path) -> str:
  """Evaluates 60 maps of 800 x 800 in a process of its own; what that took."""
  write_maps(folder)
  command = [
    sys.executable,
    "-m",
    "nps_jax.evaluate",
    f"--maps={folder / 'maps'}",
    f"--dataset={folder / 'data'}",
    f"--out={folder / 'results.json'}",
  ]
  start = time.perf_counter()
  subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
  seconds = time.perf_counter() - start
  peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # KiB on Linux
  return (
    f"{sum(COUNTS.values())} maps of {SIDE} x {SIDE}, from command to files: "
    f"{seconds:.2f} s, peak {peak:.0f} MiB"
  )


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


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints what one part costs here."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("part", choices=["metrics"])
  parser.parse_args(arguments)
  with tempfile.TemporaryDirectory() as folder:
    print(metrics(pathlib.Path(folder)))


if __name__ == "__main__":
  main()
