"""False alarms promised and met, by category, over the runs of sweeps.

python -m nps_jax.study.alarms --sweep=DIR [DIR ...] --variant=default

A run's promise is the threshold that its held-out normal images give; it is met on the
good test images, of which scores.csv has the scores.
"""

import argparse
from collections.abc import Mapping, Sequence
import csv
import pathlib
from typing import NamedTuple

from jaxtyping import Float
import numpy as np

from nps_jax import inference
from nps_jax import scoring
from nps_jax import stored
from nps_jax import verdict
from nps_jax.data import records
from nps_jax.report import lines
from nps_jax.report import table
from nps_jax.runs import arrays

RATES = (0.01, 0.05)


class Scores(NamedTuple):
  """What one run says of images: in units of its threshold."""

  held_out: Float[np.ndarray, " v"]  # normal images that nothing was fitted to
  good: Float[np.ndarray, " n"]  # of the test split
  bad: Float[np.ndarray, " m"]


def read(folder: pathlib.Path) -> dict[str, Scores]:
  """A run's scores by category.

  Raises:
    ValueError, OSError: the run is not finished, or its files are not as written.
  """
  calibrations = stored.load(folder / inference.CALIBRATION, arrays.AGAIN)
  with (folder / lines.NAME).open(encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
  scores = {}
  for name, calibration in calibrations.items():
    own = [row for row in rows if row["category"] == name]
    good, bad = (
      np.array([float(r["score"]) for r in own if (r["kind"] == records.GOOD) == side])
      for side in (True, False)
    )
    scores[name] = Scores(calibration.normal[scoring.SCORE], good, bad)
  return scores


def row(category: str, runs: Sequence[Scores]) -> list[str]:
  """A category's line: of each rate the false alarms met, and what was missed."""
  cells = [category, str(len(runs[0].held_out))]
  for rate in RATES:
    limits = [verdict.threshold(run.held_out, rate).value for run in runs]
    for part, is_alarm in (("good", True), ("bad", False)):
      counts = [
        int(np.sum((getattr(run, part) > limit) == is_alarm))
        for run, limit in zip(runs, limits, strict=True)
      ]
      total = sum(len(getattr(run, part)) for run in runs)
      share = 100 * sum(counts) / max(total, 1)
      cells.append(f"{share:.1f} ({', '.join(map(str, counts))})")
  cells.append(f"{np.median(np.concatenate([run.good for run in runs])):.2f}")
  cells.append(f"{max(run.good.max() for run in runs):.2f}")
  return cells


def to_markdown(runs: Mapping[str, Sequence[Scores]]) -> str:
  """The table: shares in percent, in brackets the images of each run."""
  titles = [
    title
    for rate in RATES
    for title in (f"false alarms at {100 * rate:g} %", f"missed at {100 * rate:g} %")
  ]
  header = ["category", "held out", *titles, "median normal", "largest normal"]
  return table.render(header, [row(name, scores) for name, scores in runs.items()])


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints a table of false alarms promised and met."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--sweep", nargs="+", type=pathlib.Path, required=True)
  parser.add_argument("--variant", default="default")
  flags = parser.parse_args(arguments)
  runs: dict[str, list[Scores]] = {}
  try:
    for sweep in flags.sweep:
      for path in sorted((sweep / flags.variant).glob(f"*/*/{lines.NAME}")):
        for name, scores in read(path.parent).items():
          runs.setdefault(name, []).append(scores)
  except (ValueError, OSError, KeyError) as error:
    raise SystemExit(f"Error: {error}") from error
  if not runs:
    raise SystemExit(f"Error: no {flags.variant}/*/*/{lines.NAME} in --sweep.")
  print(to_markdown(runs))


if __name__ == "__main__":
  main()
