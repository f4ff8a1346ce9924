"""Scores any images with a run.

python -m nps_jax.predict --run=DIR --images=FOLDER_OR_FILES --out=OUT
"""

import argparse
from collections.abc import Sequence
import csv
import io
import os
import pathlib
import shutil

from PIL import Image
import tifffile

from nps_jax import console
from nps_jax import inference
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.data import records
from nps_jax.report import figures
from nps_jax.runs import files

MAPS, ERRORS = "maps", "errors.csv"
OVERLAYS, SCORES = figures.OVERLAYS, figures.SCORES
WRITTEN = (MAPS, OVERLAYS, ERRORS, SCORES)  # the last comes last: all is there then
LONGEST = 255  # bytes of a file's name on common file systems


def predict(
  run: inference.Run,
  images: Sequence[records.Record],
  category: str,
  out: pathlib.Path,
  overwrite: bool = False,
) -> int:
  """Writes maps/ID.tiff, overlays/ID.png and scores.csv; returns how many it scored.

  Images that cannot be scored are left out, and errors.csv says why.

  The maps are float32 at the images' own sizes; 0.1 is what 99.5 % of the pixels of
  normal validation images stay below. Scores rise with the anomaly; about 4 is normal.

  Args:
    overwrite: replaces what an earlier prediction wrote; other files in `out` stay.

  Raises:
    ValueError: no image can be scored, or `out` is in use.
  """
  check_out(out, images, overwrite)
  reasons = {record.id: why for record, why in unnamable(images)}
  named = [record for record in images if record.id not in reasons]
  reasons |= {record.id: why for record, why in decoding.problems(named)}
  bad = [(each, reasons[each.id]) for each in images if each.id in reasons]
  readable = [record for record in images if record.id not in reasons]
  if not readable:
    head = f"{len(bad)} of {len(images)} images cannot be scored:"
    raise ValueError(decoding.complaint(head, [why for _, why in bad]))
  for name in reversed(WRITTEN):
    _remove(out / name)
  rows = []
  for record, values, score in inference.scores(run, readable, category):
    full = inference.at_size(values, decoding.original_size(record))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, full)
    files.write_bytes(out / MAPS / f"{record.id}.tiff", buffer.getvalue())
    buffer = io.BytesIO()
    heat = figures.overlay(decoding.decode(record), full)
    Image.fromarray(heat).save(buffer, "PNG")
    files.write_bytes(out / OVERLAYS / f"{record.id}.png", buffer.getvalue())
    rows.append((record.id, str(record.image), score, float(full.max())))
  if bad:
    errors = [(record.id, str(record.image), why) for record, why in bad]
    _write(out / ERRORS, [("id", "file", "reason"), *errors])
  _write(out / SCORES, [("id", "file", "score", "map_max"), *rows])
  return len(rows)


def check_out(
  out: pathlib.Path, images: Sequence[records.Record], overwrite: bool
) -> None:
  """Makes sure that the folder is free; ValueError says what is in the way."""
  if out.exists() and not out.is_dir():
    raise ValueError(f"--out={out} is a file; give a new or empty folder.")
  if out.exists() and any(out.iterdir()) and not overwrite:
    raise ValueError(
      f"--out={out} holds files already; give a new or empty folder, or --overwrite to "
      f"replace {', '.join(WRITTEN)} in it."
    )
  places = [pathlib.Path(os.path.realpath(out / name)) for name in (MAPS, OVERLAYS)]
  for each in images:
    if set(places) & set(pathlib.Path(os.path.realpath(each.image)).parents):
      raise ValueError(f"--out={out} would replace {each.image}, which it is to score.")


def unnamable(images: Sequence[records.Record]) -> list[tuple[records.Record, str]]:
  """The images whose map or overlay no file can hold, and why."""
  folders = {up.as_posix() for each in images for up in _path(each.id).parents}
  found = []
  for record in images:
    names = [f"{record.id}.tiff", f"{record.id}.png"]
    taken = [f"{each}/" for each in names if each in folders]
    if len(os.fsencode(_path(names[0]).name)) > LONGEST:
      reason = f"the name of its map would have more than {LONGEST} bytes"
    elif taken:
      reason = f"its map or overlay cannot be there beside those of {taken[0]}"
    else:
      continue
    found.append((record, f"{record.image} cannot be scored ({reason}). Rename it."))
  return found


def _path(name: str) -> pathlib.PurePosixPath:
  return pathlib.PurePosixPath(name)


def _remove(path: pathlib.Path) -> None:
  """Removes the file or folder, if it is there; of a link only the link."""
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


def _write(path: pathlib.Path, rows: Sequence[Sequence[object]]) -> None:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(rows)
  files.write_text(path, text.getvalue())


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
    "--strict", action="store_true", help="fail in the end if any image was left out"
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an earlier prediction in --out"
  )
  flags = parser.parse_args(arguments)
  try:
    images = folder.images(flags.images)
    run = inference.open_run(flags.run)
    category = choose_category(run, flags.category)
    count = predict(run, images, category, flags.out, flags.overwrite)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"{count} images scored; see {flags.out / SCORES}")
  if count < len(images):
    left = f"{len(images) - count} images cannot be scored; see {flags.out / ERRORS}"
    if flags.strict:
      raise SystemExit(f"Error: {left}")
    print(left)


if __name__ == "__main__":
  main()
