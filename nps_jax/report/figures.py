"""Pictures: the heat map over an image, and a sheet of images above their overlays.

python -m nps_jax.report.figures --prediction=OUT --out=FILE.png

OUT is what nps_jax.predict wrote. Of each of its folders the sheet shows the image of
median score; --ids names others.
"""

import argparse
from collections.abc import Mapping, Sequence
import csv
import io
import math
import pathlib
from typing import NamedTuple

from jaxtyping import Float, UInt8
import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from PIL import ImageOps

from nps_jax.data import decoding
from nps_jax.data import listing
from nps_jax.data import records
from nps_jax.report import lines
from nps_jax.runs import files

OVERLAYS, SCORES = "overlays", lines.NAME  # of a prediction's folder
FAINT, FULL = 1.0, 3.0  # map values where the overlay begins and is strongest
ROWS = 64  # of an image that are coloured at once
SIDE = 256  # pixels that the longer side of a picture has in a sheet
GAP = 16  # pixels between the columns of a sheet and around them
TITLE, NOTE = 20, 15  # sizes of the two lines of a caption
LEVELS = 33  # of each colour in a sheet's file: half the bytes, to the eye the same


class Panel(NamedTuple):
  """One column of a sheet: what is seen, what the method says, and two lines on it."""

  image: UInt8[np.ndarray, "h w 3"]
  overlay: UInt8[np.ndarray, "h w 3"]
  title: str
  note: str


class Row(NamedTuple):
  """One line of scores.csv."""

  id: str
  file: pathlib.Path
  score: float


def overlay(
  image: UInt8[np.ndarray, "h w 3"],
  values: Float[np.ndarray, "h w"],
  faint: float = FAINT,
  full: float = FULL,
) -> UInt8[np.ndarray, "h w 3"]:
  """The image under a heat map, yellow to red; normal places stay as they are.

  Args:
    faint, full: values where the colour begins, and is strongest.
  """
  drawn = image.copy()
  for top in range(0, len(image), ROWS):  # large images have floats of a strip only
    heat = np.clip((values[top : top + ROWS] - faint) / (full - faint), 0, 1)
    hot = heat > 0
    heat = heat[hot][:, None]
    colour = np.concatenate(
      [np.full_like(heat, 255), 230 * (1 - heat), np.zeros_like(heat)], axis=-1
    )
    share = 0.75 * np.sqrt(heat)
    strip = drawn[top : top + ROWS]
    strip[hot] = np.uint8(np.rint((1 - share) * strip[hot] + share * colour))
  return drawn


def sheet(panels: Sequence[Panel]) -> UInt8[np.ndarray, "h w 3"]:
  """The panels side by side on white: caption, image, and below it the overlay.

  A column is as wide as the widest of its caption and pictures, so no word is cut.
  """
  columns = [
    _laid(
      [
        _line(panel.title, TITLE, "black"),
        _line(panel.note, NOTE, "dimgrey"),
        _fitted(panel.image),
        _fitted(panel.overlay),
      ],
      gap=GAP // 2,
      down=True,
    )
    for panel in panels
  ]
  page = _laid(columns, gap=GAP, down=False)
  return np.array(ImageOps.expand(page, border=GAP, fill="white"))


def _laid(parts: Sequence[Image.Image], gap: int, *, down: bool) -> Image.Image:
  """The parts one below the other, or one beside the other, on white."""
  along = [part.height if down else part.width for part in parts]
  across = max(part.width if down else part.height for part in parts)
  total = sum(along) + gap * (len(parts) - 1)
  page = Image.new("RGB", (across, total) if down else (total, across), "white")
  at = 0
  for part, length in zip(parts, along, strict=True):
    page.paste(part, (0, at) if down else (at, 0))
    at += length + gap
  return page


def _line(text: str, size: int, colour: str) -> Image.Image:
  """The text in one line, which is as long as it needs."""
  text, font = " ".join(text.split()), ImageFont.load_default(size)
  line = Image.new("RGB", (math.ceil(font.getlength(text)) + 1, size), "white")
  ImageDraw.Draw(line).text((0, size), text, colour, font, anchor="ld")
  return line


def _fitted(pixels: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
  """The picture with SIDE pixels along its longer side."""
  picture = Image.fromarray(pixels)
  factor = SIDE / max(picture.size)
  size = tuple(max(1, round(factor * length)) for length in picture.size)
  return picture.resize(size, Image.Resampling.LANCZOS)


def read_scores(prediction: pathlib.Path) -> dict[str, Row]:
  """The lines of a prediction's scores.csv, by id.

  Raises:
    ValueError: there is no such file, or it is not nps_jax.predict's.
  """
  path = prediction / SCORES
  if not path.is_file():
    raise ValueError(
      f"--prediction={prediction} has no {SCORES}; give the --out of nps_jax.predict."
    )
  try:
    with path.open(encoding="utf-8", newline="") as file:
      rows = [
        Row(line["id"], pathlib.Path(line["file"]), float(line["score"]))
        for line in csv.DictReader(file)
      ]
  except (KeyError, TypeError, ValueError) as error:
    raise ValueError(f"{path} is not as nps_jax.predict writes it.") from error
  if not rows:
    raise ValueError(f"{path} names no image.")
  return {row.id: row for row in rows}


def medians(rows: Mapping[str, Row]) -> list[str]:
  """Of each folder the id of median score, of an even number the lower of the two."""
  folders: dict[str, list[Row]] = {}
  for row in rows.values():
    folders.setdefault(row.id.rpartition("/")[0], []).append(row)
  ranked = [
    sorted(folder, key=lambda row: (row.score, row.id)) for folder in folders.values()
  ]
  return [folder[(len(folder) - 1) // 2].id for folder in ranked]


def read_panels(
  prediction: pathlib.Path, ids: Sequence[str], titles: Sequence[str]
) -> list[Panel]:
  """The panels of these images; without ids, of those of median score.

  Args:
    titles: one for each; without any, the ids.

  Raises:
    ValueError: the prediction lacks one of them, or files do not belong together.
  """
  rows = read_scores(prediction)
  ids = list(ids) or medians(rows)
  if missing := [name for name in ids if name not in rows]:
    raise ValueError(
      f"{prediction / SCORES} does not have {listing.some(missing)}; it has "
      f"{listing.some(list(rows))}.{listing.near(missing, list(rows))}"
    )
  if titles and len(titles) != len(ids):
    raise ValueError(
      f"--titles has {len(titles)} for {len(ids)} images, which are {', '.join(ids)}; "
      "give one for each."
    )
  return [
    _panel(prediction, rows[name], title)
    for name, title in zip(ids, titles or ids, strict=True)
  ]


def _panel(prediction: pathlib.Path, row: Row, title: str) -> Panel:
  if not row.file.exists():
    raise ValueError(
      f"{row.file} does not exist, from which {prediction / SCORES} has {row.id}. "
      "Start where nps_jax.predict was started, or predict again."
    )
  image, coloured = (
    decoding.decode(records.Record(row.id, "", "", "", path))
    for path in (row.file, prediction / OVERLAYS / f"{row.id}.png")
  )
  if image.shape != coloured.shape:
    raise ValueError(
      f"{row.file} is {image.shape[0]} x {image.shape[1]} (height x width) but its "
      f"overlay is {coloured.shape[0]} x {coloured.shape[1]}. Predict again."
    )
  where = "" if title == row.id else f"{row.id}, "
  return Panel(image, coloured, title, f"{where}score {row.score:.1f}")


def main(arguments: Sequence[str] | None = None) -> None:
  """Puts images of a prediction above their overlays, in one PNG."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument(
    "--prediction", required=True, type=pathlib.Path, help="the --out of predict"
  )
  parser.add_argument(
    "--ids",
    type=_names,
    default=[],
    help="images, commas between them (default: of each folder the median score's)",
  )
  parser.add_argument(
    "--titles", type=_names, default=[], help="one for each (default: the ids)"
  )
  parser.add_argument("--out", required=True, type=pathlib.Path, help="a PNG file")
  parser.add_argument("--overwrite", action="store_true", help="replace --out")
  flags = parser.parse_args(arguments)
  try:
    if flags.out.suffix.lower() != ".png":
      raise ValueError(f"--out={flags.out} does not end in .png.")
    if flags.out.exists() and not flags.overwrite:
      raise ValueError(
        f"{flags.out} exists already. Give another --out, or --overwrite."
      )
    panels = read_panels(flags.prediction, flags.ids, flags.titles)
    files.write_bytes(flags.out, _png(sheet(panels)))
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(f"{len(panels)} images above their overlays: {flags.out}")


def _png(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
  steps = np.rint(pixels * ((LEVELS - 1) / 255))
  buffer = io.BytesIO()
  coarse = np.uint8(np.rint(steps * (255 / (LEVELS - 1))))
  Image.fromarray(coarse).save(buffer, "PNG", optimize=True)
  return buffer.getvalue()


def _names(text: str) -> list[str]:
  return [name.strip() for name in text.split(",") if name.strip()]


if __name__ == "__main__":
  main()
