"""scores.csv: a line for each image."""

from collections.abc import Mapping, Sequence
import csv
import io
import pathlib
from typing import Any

from nps_jax.runs import files

NAME = "scores.csv"
OK, ANOMALOUS = "ok", "anomalous"  # verdicts

Row = dict[str, Any]  # a line, by column


class Appender:
  """Adds lines to a file, each there as soon as it is added."""

  def __init__(self, path: pathlib.Path, columns: Sequence[str]):
    """Goes on with the file, if there is one; else begins it with its columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    begun = path.exists()
    self._file = path.open("a", encoding="utf-8", errors="backslashreplace", newline="")
    self._writer = csv.DictWriter(self._file, columns, lineterminator="\n")
    if not begun:
      self._writer.writeheader()

  def add(self, row: Row) -> None:
    """Adds a line, which survives what stops this process from now on."""
    self._writer.writerow(row)
    self._file.flush()

  def close(self) -> None:
    """Closes the file."""
    self._file.close()


def plain(text: str) -> str:
  r"""The text as a file has it: of a name's bytes that are none, \\udc.. is told."""
  return text.encode("utf-8", "backslashreplace").decode("utf-8")


def mend(path: pathlib.Path) -> list[Row]:
  """The file's whole lines; what a kill left of another one is cut off."""
  if not path.exists():
    return []
  text = path.read_text(encoding="utf-8", errors="surrogateescape")
  columns, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [()]
  whole = [line for line in lines if len(line) == len(columns)]
  if whole and not text.endswith("\n"):
    whole.pop()  # its last column may be cut short
  rows = [dict(zip(columns, line, strict=True)) for line in whole]
  if rows:
    write(path, rows)
  else:
    path.unlink()
  return rows


def write(path: pathlib.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes the lines as CSV, under the columns that the first one has."""
  text = io.StringIO()
  writer = csv.DictWriter(text, tuple(rows[0]) if rows else (), lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  files.write_text(path, text.getvalue())
