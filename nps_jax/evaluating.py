"""Measures a run on its test images."""

from collections.abc import Iterator, Sequence
import pathlib

from absl import logging
import ml_collections

from nps_jax import config as settings
from nps_jax import inference
from nps_jax import predicting
from nps_jax import publishing
from nps_jax import scoring
from nps_jax import verdict
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.data import naming
from nps_jax.data import records
from nps_jax.data import regions
from nps_jax.data import sources
from nps_jax.report import page
from nps_jax.runs import provenance
from nps_jax.runs import telemetry


def evaluate(
  run: inference.Run,
  *,
  root: str | None = None,
  region: str | None = None,
  categories: Sequence[str] | None = None,
  options: publishing.Options = publishing.Options(),  # noqa: B008 - never changes
) -> list[page.Category]:
  """Each category's results on its test images, and what is said of each of these.

  Args:
    root: where the data set is now, if it has moved.
    region: where its region or regions are now; None: the run's own.
    categories: which of the run's; None: all of them.

  Raises:
    ValueError: what `measure` raises.
  """
  config = ml_collections.ConfigDict(run.about.config).copy_and_resolve_references()
  config.data.root = root or config.data.root
  config.data.region = region or regions.of_run(run.folder, config.data.region)
  measured = []
  with provenance.timed(run.folder, "evaluate"):
    for name in categories or run.about.categories:
      (data,) = _open(config, name, alone=len(run.about.categories) == 1)
      if not data.test:
        logging.warning("%s has no test images: not evaluated.", data.category)
        continue
      judged = _judged(run, data)
      each = publishing.measure(data, judged, options, _facts(run, data), scaled=True)
      measured.append(each._replace(result=each.result | _more(run, each)))
  return measured


def _open(
  config: ml_collections.ConfigDict, name: str, alone: bool
) -> tuple[records.Dataset, ...]:
  """A category's data; of the `alone` one also where its folder is now named else."""
  root = pathlib.Path(config.data.root).expanduser()
  config.data.category = name
  if alone and config.data.source == "folder" and folder.is_category(root):
    config.data.category = "all"
  return sources.renamed(sources.open_all(config.data, config.seed), [name])


def choose(run: inference.Run, category: str | None) -> list[str]:
  """The categories asked for, several with commas; None or "all": the run's.

  Raises:
    ValueError: the run does not know one of them.
  """
  known = run.about.categories
  if category in (None, "all"):
    return list(known)
  names = naming.split_names(category, known)
  if strange := sorted(set(names) - set(known)):
    raise ValueError(
      f"{run.folder} knows {', '.join(known)}, not {', '.join(strange)}; name some of "
      "these."
    )
  return names


def _judged(run: inference.Run, data: records.Dataset) -> Iterator[publishing.Judged]:
  """The test records with their maps at the images' own sizes, and their lines."""
  normal = run.calibrations[data.category].normal[scoring.SCORE]
  for scored in inference.scores(run, data.test, data.category):
    full = inference.at_size(scored.map, decoding.original_size(scored.record))
    yield scored.record, full, predicting.row(scored, full, normal, limit=1.0)


def _more(run: inference.Run, measured: page.Category) -> dict[str, object]:
  """What a run's results have besides."""
  curve = telemetry.read(run.folder)
  seen = [(shot.good, shot.row["score"]) for shot in measured.shots]
  return {
    "verdict": tell_verdicts(measured.result["category"], seen),
    "steps": run.step,
    "seconds": curve[-1]["seconds"] if curve else None,
    "config_hash": settings.fingerprint(run.about.config),
  }


def _facts(run: inference.Run, data: records.Dataset) -> dict[str, str]:
  """What was trained on what, in words."""
  made, about = provenance.read(run.folder), run.about
  config = settings.fingerprint(about.config)
  package = made.get("calibrate", {})
  calibration = run.calibrations[data.category]
  limit = verdict.threshold(calibration.normal[scoring.SCORE], verdict.RATE)
  bounds = f"{limit.low:.2f} and {limit.high:.2f}"
  earlier = "".join(f", extended from {steps}" for steps in about.extended)
  spent = [f"{part} {made[part]['seconds']:.0f} s" for part in made]
  weights = calibration.map_weights.items()
  return {
    "Run": str(run.folder.resolve()),
    "Package": f"nps_jax {package['version']}, commit {package['commit']}"
    if package
    else "unknown",
    "Settings": f"config {config}, seed {about.config.seed}",
    "Encoder": ", ".join(f"{name} {value}" for name, value in about.encoder.items()),
    "Normal images": f"{len(data.train)} to train on, {len(data.validation)} held out",
    "Trained": f"{run.step} steps{earlier}; " + (", ".join(spent) or "untimed"),
    "Weights in the map": ", ".join(f"{name} {value:.2f}" for name, value in weights),
    "Threshold": f"1, certain (90 %) to be between {bounds}",
  }


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
