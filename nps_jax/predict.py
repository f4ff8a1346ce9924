"""Scores any images with a run.

python -m nps_jax.predict --run=DIR --images=FOLDER_OR_FILES --out=OUT
"""

import argparse
from collections.abc import Sequence
import csv
import io
import pathlib

from jaxtyping import Float, UInt8
import numpy as np
from PIL import Image
import tifffile

from nps_jax import console
from nps_jax import files
from nps_jax import inference
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.data import records

ERRORS = "errors.csv"
FAINT, FULL = 0.1, 0.5  # map values where the overlay begins and is strongest


def predict(
  run: inference.Run, images: Sequence[records.Record], category: str, out: pathlib.Path
) -> int:
  """Writes maps/ID.tiff, overlays/ID.png and scores.csv; returns how many it scored.

  Images that cannot be read are left out, and errors.csv says why.

  The maps are float32 at the images' own sizes; 0.1 is what 99.5 % of the pixels of
  normal validation images stay below. Scores rise with the anomaly; about 2 is normal.

  Raises:
    ValueError: no image can be read, or `out` is in use.
  """
  if out.exists() and (not out.is_dir() or any(out.iterdir())):
    raise ValueError(f"--out={out} holds files already; give a new or empty folder.")
  bad = decoding.problems(images, decoding.decode)
  unread = {record.id for record, _ in bad}
  readable = [record for record in images if record.id not in unread]
  if not readable:
    raise ValueError(decoding.complaint([why for _, why in bad], len(images)))
  rows = []
  for record, values, score in inference.scores(run, readable, category):
    full = inference.at_size(values, decoding.original_size(record))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, full)
    files.write_bytes(out / "maps" / f"{record.id}.tiff", buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(overlay(decoding.decode(record), full)).save(buffer, "PNG")
    files.write_bytes(out / "overlays" / f"{record.id}.png", buffer.getvalue())
    rows.append((record.id, str(record.image), score, float(full.max())))
  if bad:
    errors = [(record.id, str(record.image), why) for record, why in bad]
    _write(out / ERRORS, [("id", "file", "reason"), *errors])
  _write(out / "scores.csv", [("id", "file", "score", "map_max"), *rows])
  return len(rows)


def _write(path: pathlib.Path, rows: Sequence[Sequence[object]]) -> None:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(rows)
  files.write_text(path, text.getvalue())


def overlay(
  image: UInt8[np.ndarray, "h w 3"], values: Float[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
  """The image under a heat map, yellow to red; normal places stay as they are."""
  heat = np.clip((values - FAINT) / (FULL - FAINT), 0, 1)[..., None]
  colour = np.concatenate(
    [np.full_like(heat, 255), 230 * (1 - heat), np.zeros_like(heat)], axis=-1
  )
  share = 0.75 * np.sqrt(heat)
  return np.uint8(np.rint((1 - share) * image + share * colour))


def choose_category(run: inference.Run, name: str | None) -> str:
  """The category asked for, or the only one.

  Raises:
    ValueError: the run does not have it, or has several and none was named.
  """
  known = run.about.categories
  if name is None and len(known) == 1:
    return known[0]
  if name not in known:
    raise ValueError(
      f"--category is {name!r}; this run knows {', '.join(known)}. Name the one that "
      "the images show."
    )
  return name


def main(arguments: Sequence[str] | None = None) -> None:
  """Scores any images with a run; needs no labels."""
  console.listen()
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument(
    "--run", required=True, type=pathlib.Path, help="folder of a trained run"
  )
  parser.add_argument(
    "--images",
    required=True,
    nargs="+",
    action="extend",
    help="image files and folders",
  )
  parser.add_argument(
    "--out", required=True, type=pathlib.Path, help="a new or empty folder"
  )
  parser.add_argument(
    "--category", help="of the run's categories, the one that the images show"
  )
  parser.add_argument(
    "--strict", action="store_true", help="fail in the end if any image cannot be read"
  )
  flags = parser.parse_args(arguments)
  try:
    images = folder.images(flags.images)
    run = inference.open_run(flags.run)
    count = predict(run, images, choose_category(run, flags.category), flags.out)
  except (ValueError, FileNotFoundError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"{count} images scored; see {flags.out / 'scores.csv'}")
  if count < len(images):
    left = f"{len(images) - count} images cannot be read; see {flags.out / ERRORS}"
    if flags.strict:
      raise SystemExit(f"Error: {left}")
    print(left)


if __name__ == "__main__":
  main()
