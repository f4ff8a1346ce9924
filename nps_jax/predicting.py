"""Scores images and writes what was found: verdicts, maps, overlays, reasons."""

from collections.abc import Sequence
import csv
import io
import os
import pathlib
import shutil
from typing import Any

from jaxtyping import Float
import numpy as np
import tifffile

from nps_jax import inference
from nps_jax import scoring
from nps_jax import verdict
from nps_jax.data import decoding
from nps_jax.data import encoded
from nps_jax.data import records
from nps_jax.report import figures
from nps_jax.runs import files

MAPS, ERRORS = "maps", "errors.csv"
OVERLAYS, SCORES = figures.OVERLAYS, figures.SCORES
WRITTEN = (MAPS, OVERLAYS, ERRORS, SCORES)  # the last comes last: all is there then
OK, ANOMALOUS = "ok", "anomalous"  # verdicts
LONGEST = 255  # bytes of a file's name on common file systems


Row = dict[str, Any]  # a line of scores.csv, by column


def predict(
  run: inference.Run,
  images: Sequence[records.Record],
  category: str,
  out: pathlib.Path,
  overwrite: bool = False,
  limit: float = 1.0,
) -> tuple[int, int]:
  """Writes maps/ID.tiff, overlays/ID.png and scores.csv.

  Returns how many images it scored, and how many of them are anomalous.

  Images that cannot be scored are left out, and errors.csv says why.

  The maps are float32 at the images' own sizes. Scores and maps rise with the anomaly;
  one normal image in a hundred is to be expected to reach 1, in its map anywhere. Of
  the columns of scores.csv `where` is the box of the map's strongest region in pixels:
  left, top, right and bottom, the last two not within.

  Args:
    overwrite: replaces what an earlier prediction wrote; other files in `out` stay.
    limit: the score above which an image is anomalous.

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
  rows, normal = [], run.calibrations[category].normal[scoring.SCORE]
  for scored in inference.scores(run, readable, category):
    full = inference.at_size(scored.map, decoding.original_size(scored.record))
    _write_pictures(out, scored.record, full)
    rows.append(row(scored, full, normal, limit))
  if bad:
    errors = [(record.id, str(record.image), why) for record, why in bad]
    _write(out / ERRORS, [("id", "file", "reason"), *errors])
  write_rows(out / SCORES, rows)
  return len(rows), sum(line["verdict"] == ANOMALOUS for line in rows)


def _write_pictures(
  out: pathlib.Path, record: records.Record, full: Float[np.ndarray, "h w"]
) -> None:
  """The map as a TIFF, and the overlay as a PNG."""
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, full)
  files.write_bytes(out / MAPS / f"{record.id}.tiff", buffer.getvalue())
  heat = figures.overlay(decoding.decode(record), full)
  files.write_bytes(out / OVERLAYS / f"{record.id}.png", encoded.png(heat))


def row(
  scored: inference.Scored,
  full: Float[np.ndarray, "h w"],
  normal: Float[np.ndarray, " v"],
  limit: float,
) -> Row:
  """The image's line of scores.csv, by column."""
  record, reason = scored.record, scored.reason
  return {
    "id": record.id,
    "file": str(record.image),
    "score": scored.score,
    "normal_percentile": round(verdict.percentile(normal, scored.score), 1),
    "verdict": ANOMALOUS if scored.score > limit else OK,
    "map_max": float(full.max()),
    "side": reason.side,
    "source": reason.source,
    "where": " ".join(map(str, reason.pixels(full.shape))),
    "what": reason.what,
  }


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


def write_rows(path: pathlib.Path, rows: Sequence[Row]) -> None:
  """Writes the lines as CSV, under the columns that they all have."""
  columns = tuple(rows[0]) if rows else ()
  _write(path, [columns, *(tuple(line.values()) for line in rows)])


def _write(path: pathlib.Path, rows: Sequence[Sequence[object]]) -> None:
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(rows)
  files.write_text(path, text.getvalue())
