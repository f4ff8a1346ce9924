"""Scores images and writes what was found: verdicts, maps, overlays, reasons."""

from collections.abc import Iterable, Mapping, Sequence, Set
import hashlib
import io
import json
import os
import pathlib
import shutil
from typing import Any, NamedTuple

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
from nps_jax.report import lines
from nps_jax.runs import description
from nps_jax.runs import files

MAPS, ERRORS, STARTED = "maps", "errors.csv", "prediction.json"
OVERLAYS, SCORES = figures.OVERLAYS, lines.NAME
WRITTEN = (MAPS, OVERLAYS, ERRORS, SCORES, STARTED)
COLUMNS = (
  *("id", "file", "score", "normal_percentile", "verdict", "map_max"),
  *("side", "source", "where", "what"),
)
LONGEST = 255  # bytes of a file's name on common file systems


class Wanted(NamedTuple):
  """What a prediction is to write, and what may lie there before it."""

  maps: bool = True  # each image's as a TIFF
  overlays: bool = True  # each image's as a PNG
  overwrite: bool = False  # what an earlier prediction wrote; other files stay
  resume: bool = False  # an earlier prediction, whose lines of scores.csv stay


class Done(NamedTuple):
  """How many images are in scores.csv, and how many cannot be."""

  scored: int
  anomalous: int
  left_out: int


def predict(
  run: inference.Run,
  images: Sequence[records.Record],
  category: str,
  out: pathlib.Path,
  wanted: Wanted = Wanted(),  # noqa: B008 - a NamedTuple does not change
  limit: float = 1.0,
) -> Done:
  """Writes scores.csv, a line as soon as an image is scored; maps/ID.tiff, overlays/.

  Images that cannot be scored are left out, and errors.csv says why.

  The maps are float32 at the images' own sizes. Scores and maps rise with the anomaly;
  one normal image in a hundred is to be expected to reach 1, in its map anywhere. Of
  the columns of scores.csv `where` is the box of the map's strongest region in pixels:
  left, top, right and bottom, the last two not within.

  Args:
    limit: the score above which an image is anomalous.

  Raises:
    ValueError: no image can be scored, or `out` is in use, or holds the prediction of
      another run or with other settings, with which this one cannot go on.
  """
  started = identity(run, category, wanted, limit)
  check_out(out, images, wanted, started)
  reasons = {record.id: why for record, why in unnamable(images)}
  named = [record for record in images if record.id not in reasons]
  reasons |= {record.id: why for record, why in decoding.problems(named)}
  bad = [(each, reasons[each.id]) for each in images if each.id in reasons]
  readable = [record for record in images if record.id not in reasons]
  if not readable:
    head = f"{len(bad)} of {len(images)} images cannot be scored:"
    raise ValueError(decoding.complaint(head, [why for _, why in bad]))
  rows = begin(out, wanted, started)
  write_errors(out, bad)
  known = {row["id"] for row in rows}
  waiting = {record.id for record in readable if lines.plain(record.id) not in known}
  # Whole batches, as at the first time: an image's place in one decides last digits.
  size = inference.batch_size()
  batches = [readable[at : at + size] for at in range(0, len(readable), size)]
  again = [r for batch in batches if waiting & {r.id for r in batch} for r in batch]
  rows += _score(run, again, waiting, category, out, wanted, limit)
  anomalous = sum(row["verdict"] == lines.ANOMALOUS for row in rows)
  return Done(len(rows), anomalous, len(bad))


def _score(
  run: inference.Run,
  images: Sequence[records.Record],
  waiting: Set[str],
  category: str,
  out: pathlib.Path,
  wanted: Wanted,
  limit: float,
) -> list[lines.Row]:
  """Scores the images and writes what is found.

  Args:
    waiting: the ids of those that are to be written.
  """
  normal = run.calibrations[category].normal[scoring.SCORE]
  stream = inference.scores(run, images, category) if images else ()
  chosen = (scored for scored in stream if scored.record.id in waiting)
  return write(chosen, normal, out, wanted, limit)


def write(
  stream: Iterable[inference.Scored],
  normal: Float[np.ndarray, " v"],
  out: pathlib.Path,
  wanted: Wanted,
  limit: float,
) -> list[lines.Row]:
  """Adds a line of scores.csv for each; its files are there before its line is.

  Args:
    normal: the calibration's scores of normal images.
  """
  rows = []
  appender = lines.Appender(out / SCORES, COLUMNS)
  try:
    for scored in stream:
      full = inference.at_size(scored.map, decoding.original_size(scored.record))
      _write_pictures(out, scored.record, full, wanted)
      rows.append(row(scored, full, normal, limit))
      appender.add(rows[-1])
  finally:
    appender.close()
  return rows


def identity(
  run: inference.Run, category: str, wanted: Wanted, limit: float
) -> dict[str, Any]:
  """What must be the same for a prediction to go on."""
  normal = run.calibrations[category].normal[scoring.SCORE]
  return {
    "run": str(run.folder),
    "normal_scores": hashlib.sha256(normal.tobytes()).hexdigest(),  # of that training
    "category": category,
    "threshold": limit,
    "maps": wanted.maps,
    "overlays": wanted.overlays,
  }


def _write_pictures(
  out: pathlib.Path,
  record: records.Record,
  full: Float[np.ndarray, "h w"],
  wanted: Wanted,
) -> None:
  """The map as a TIFF, and the overlay as a PNG."""
  if wanted.maps:
    files.write_bytes(out / MAPS / f"{record.id}.tiff", tiff(full))
  if wanted.overlays:
    heat = figures.overlay(decoding.decode(record), full)
    files.write_bytes(out / OVERLAYS / f"{record.id}.png", encoded.png(heat))


def tiff(full: Float[np.ndarray, "h w"]) -> bytes:
  """The map as a TIFF file's bytes."""
  buffer = io.BytesIO()
  tifffile.imwrite(buffer, full)
  return buffer.getvalue()


def row(
  scored: inference.Scored,
  full: Float[np.ndarray, "h w"],
  normal: Float[np.ndarray, " v"],
  limit: float,
) -> lines.Row:
  """The image's line of scores.csv, by column."""
  record, reason = scored.record, scored.reason
  return {
    "id": record.id,
    "file": str(record.image),
    "score": scored.score,
    "normal_percentile": round(verdict.percentile(normal, scored.score), 1),
    "verdict": lines.ANOMALOUS if scored.score > limit else lines.OK,
    "map_max": float(full.max()),
    "side": reason.side,
    "source": reason.source,
    "where": " ".join(map(str, reason.pixels(full.shape))),
    "what": reason.what,
  }


def check_out(
  out: pathlib.Path,
  images: Sequence[records.Record],
  wanted: Wanted,
  started: Mapping[str, Any],
) -> None:
  """Makes sure that the folder is free, or that its prediction can go on.

  Args:
    started: what this prediction writes into prediction.json.

  Raises:
    ValueError: says what is in the way.
  """
  if out.exists() and not out.is_dir():
    raise ValueError(f"--out={out} is a file; give a new or empty folder.")
  used = out.exists() and any(out.iterdir())
  if used and wanted.resume:
    _check_same(out, started)
  elif used and not wanted.overwrite:
    raise ValueError(
      f"--out={out} holds files already; give a new or empty folder, --resume to go on "
      f"with a prediction, or --overwrite to replace {', '.join(WRITTEN)} in it."
    )
  places = [pathlib.Path(os.path.realpath(out / name)) for name in (MAPS, OVERLAYS)]
  for each in images:
    if set(places) & set(pathlib.Path(os.path.realpath(each.image)).parents):
      raise ValueError(f"--out={out} would replace {each.image}, which it is to score.")


def _check_same(out: pathlib.Path, started: Mapping[str, Any]) -> None:
  """Makes sure that the folder's prediction was made as this one is to be."""
  path = out / STARTED
  try:
    there = json.loads(path.read_text(encoding="utf-8"))
    differing = description.compare(there, {**started, "run": there["run"]})
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise ValueError(
      f"--resume: {out} holds files, but no {STARTED} says of which run. Give another "
      "--out."
    ) from error
  if differing:
    raise ValueError(
      f"--resume: {out} holds a prediction with other settings:\n  "
      + "\n  ".join(differing)
      + "\nUse another --out, or give the settings of that prediction."
    )


def begin(
  out: pathlib.Path, wanted: Wanted, started: Mapping[str, Any]
) -> list[lines.Row]:
  """Removes what is not to stay, and says what was started.

  Returns:
    The lines of the scores.csv with which it goes on.
  """
  for name in (ERRORS,) if wanted.resume else WRITTEN:
    _remove(out / name)
  files.write_text(out / STARTED, json.dumps(started, indent=2) + "\n")
  return lines.mend(out / SCORES)


def write_errors(out: pathlib.Path, bad: Sequence[tuple[records.Record, str]]) -> None:
  """Writes errors.csv, or removes it where no image is bad.

  Args:
    bad: the images that cannot be scored, and why.
  """
  listed = [{"id": r.id, "file": str(r.image), "reason": why} for r, why in bad]
  if listed:
    lines.write(out / ERRORS, listed)
  else:
    _remove(out / ERRORS)


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
