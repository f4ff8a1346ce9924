"""Measures a run on its test images, and says of each of them what was found."""

from collections.abc import Iterator, Sequence
import pathlib
from typing import NamedTuple

from absl import logging
from jaxtyping import Float
import ml_collections
import numpy as np

from nps_jax import config as settings
from nps_jax import inference
from nps_jax import predicting
from nps_jax import scoring
from nps_jax import verdict
from nps_jax.data import decoding
from nps_jax.data import records
from nps_jax.data import sources
from nps_jax.metrics import category as measures
from nps_jax.report import lines
from nps_jax.report import table
from nps_jax.runs import files
from nps_jax.runs import telemetry


class Evaluation(NamedTuple):
  """What was measured, and what it was measured from."""

  results: list[dict]  # of each category, as `category.measure` has them
  images: list[lines.Row]  # of each test image also its category and kind


def evaluate(
  run: inference.Run,
  *,
  root: str | None = None,
  category: str | None = None,
  limits: Sequence[float] | None = None,
  bootstrap: int = 0,
  seed: int = 0,
) -> Evaluation:
  """Each category's results on its test images, and what is said of each of these.

  Args:
    root: where the data set is now, if it has moved.
    category: which of the run's categories, several with commas; None: all of them.

  Raises:
    ValueError: a category that the run does not know, or what `measure` raises.
  """
  config = ml_collections.ConfigDict(run.about.config)
  config.data.root = root or config.data.root
  known = run.about.categories
  config.data.category = category or ",".join(known)
  strange = set(config.data.category.split(",")) - set(known)
  if strange:
    raise ValueError(
      f"{run.folder} knows {', '.join(known)}, not {', '.join(sorted(strange))}; name "
      "some of these."
    )
  curve = telemetry.read(run.folder)
  results, images = [], []
  for data in sources.open_all(config.data, config.seed):
    if not data.test:
      logging.warning("%s has no test images: not evaluated.", data.category)
      continue
    rows: list[lines.Row] = []
    scored = _scored(run, data, rows)
    figures = measures.measure(data, scored, limits, bootstrap, seed)
    seen = [(row["kind"] == records.GOOD, row["score"]) for row in rows]
    images += rows
    about = {
      "verdict": tell_verdicts(data.category, seen),
      "steps": run.step,
      "seconds": curve[-1]["seconds"] if curve else None,
      "config_hash": settings.fingerprint(run.about.config),
    }
    results.append(figures | about)
  return Evaluation(results, images)


def _scored(
  run: inference.Run, data: records.Dataset, rows: list[lines.Row]
) -> Iterator[tuple[records.Record, Float[np.ndarray, "h w"], float]]:
  """The test records with their maps at the images' own sizes, and image scores.

  Args:
    rows: takes up each image's line of scores.csv.
  """
  normal = run.calibrations[data.category].normal[scoring.SCORE]
  for scored in inference.scores(run, data.test, data.category):
    full = inference.at_size(scored.map, decoding.original_size(scored.record))
    place = {"category": data.category, "kind": scored.record.kind}
    rows.append(place | predicting.row(scored, full, normal, limit=1.0))
    yield scored.record, full, scored.score


def tell_verdicts(
  category: str, seen: Sequence[tuple[bool, float]]
) -> dict[str, int | float]:
  """Counts, and logs, what a threshold of 1 makes of test images.

  Args:
    seen: whether each was good, and its score.
  """
  good = sum(was_good for was_good, _ in seen)
  alarms = sum(was_good and score > 1 for was_good, score in seen)
  misses = sum(not was_good and score <= 1 for was_good, score in seen)
  logging.info(
    "%s: above a score of 1 are %d of %d good test images (false alarms), not above it "
    "%d of %d anomalous ones (misses).",
    *(category, alarms, good, misses, len(seen) - good),
  )
  if verdict.is_surprising(alarms, good):
    logging.warning(
      "%s: that is more than the %.0f in 100 that were to be expected, so test images "
      "differ from those of the calibration: another day, light or camera?",
      *(category, 100 * verdict.RATE),
    )
  return {
    "promised": verdict.RATE,
    "false_alarms": alarms,
    "good": good,
    "misses": misses,
    "anomalous": len(seen) - good,
  }


def publish(evaluation: Evaluation, path: pathlib.Path) -> None:
  """Writes the results at `path`, and beside them the images' scores; prints them."""
  lines.write(scores_path(path), evaluation.images)
  table.publish(evaluation.results, path)


def scores_path(path: pathlib.Path) -> pathlib.Path:
  """Where the images' scores lie: scores.csv in a run, else NAME_scores.csv."""
  own = path.name == files.RESULTS
  return path.with_name(lines.NAME if own else f"{path.stem}_scores.csv")


def check_absent(path: pathlib.Path) -> None:
  """Makes sure that `publish` would replace nothing.

  Raises:
    ValueError: some of its files exist; names them.
  """
  table.check_absent(path, scores_path(path))
