"""Scores a run's test images: python -m nps_jax.evaluate --run=DIR."""

import argparse
from collections.abc import Iterator, Sequence
import pathlib

from absl import logging
import ml_collections
import numpy as np

from nps_jax import config as settings
from nps_jax import distributed
from nps_jax import inference
from nps_jax import telemetry
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.data import records
from nps_jax.metrics import category
from nps_jax.report import table


def evaluate_run(run: inference.Run, root: str | None = None) -> list[dict]:
  """Each category's results; writes results.json, .csv and .md into the run."""
  config = ml_collections.ConfigDict(run.about.config)
  if root is not None:
    config.data.root = root
  config.data.category = ",".join(run.about.categories)
  lines = telemetry.read(run.folder)
  results = []
  for data in folder.open_all(config.data, config.seed):
    if not data.test:
      logging.warning("%s has no test images: not evaluated.", data.category)
      continue
    measured = category.measure(data, scored(run, data))
    results.append(
      {
        **measured,
        "steps": run.step,
        "seconds": lines[-1]["seconds"] if lines else None,
        "config_hash": settings.fingerprint(run.about.config),
      }
    )
  if distributed.is_lead():
    table.write(results, run.folder)
    print(table.to_markdown(results))
    print(f"\nThe run, with its results, lies in {run.folder}")
  return results


def scored(
  run: inference.Run, data: records.Dataset
) -> Iterator[tuple[records.Record, np.ndarray, float]]:
  """The test records with their maps at the images' own sizes, and image scores."""
  for record, values, score in inference.scores(run, data.test, data.category):
    yield record, inference.at_size(values, decoding.original_size(record)), score


def main(arguments: Sequence[str] | None = None) -> None:
  """Scores a run's test images; writes results.json, .csv and .md into the run."""
  telemetry.listen()
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument(
    "--run", required=True, type=pathlib.Path, help="folder of a trained run"
  )
  parser.add_argument("--root", help="where the data set is now, if it has moved")
  flags = parser.parse_args(arguments)
  try:
    evaluate_run(inference.open_run(flags.run), flags.root)
  except (ValueError, FileNotFoundError) as error:
    raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
  main()
