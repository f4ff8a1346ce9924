"""What others report on MVTec LOCO AD: published.csv, with a source for each line.

Image AUROC and AU-sPRO@0.05 in percent, mean of the five categories. `needs` says what
a method takes besides normal images and a network trained on ImageNet; `epoch` which of
a training is reported, where that is known: one that was chosen on test images makes a
figure too good. Empty is what is not known, or not needed.
"""

import csv
import pathlib
from typing import NamedTuple

FILE = pathlib.Path(__file__).with_name("published.csv")
DATA_SET = "MVTec LOCO AD"
METRICS = ("logical", "structural", "mean", "pooled", "au_spro")
WORDS = ("needs", "epoch", "source")


class Figures(NamedTuple):
  """One method's results."""

  method: str
  values: tuple[float | None, ...]  # of METRICS, in percent
  words: tuple[str, ...]  # of WORDS


def read() -> tuple[Figures, ...]:
  """The file's lines on the data set, in their order."""
  with FILE.open(encoding="utf-8", newline="") as file:
    return tuple(
      Figures(
        method=line["method"],
        values=tuple(float(line[name]) if line[name] else None for name in METRICS),
        words=tuple(line[name] for name in WORDS),
      )
      for line in csv.DictReader(file)
      if line["data_set"] == DATA_SET
    )
