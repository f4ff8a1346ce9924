"""Trains a detector and evaluates it.

python -m nps_jax.train --config=configs/loco.py --workdir=DIR --config.data.root=ROOT
"""

from collections.abc import Sequence
import pathlib

from absl import app
from absl import flags
from ml_collections import config_flags

from nps_jax import console
from nps_jax import distributed
from nps_jax import evaluate
from nps_jax import inference
from nps_jax import trainer
from nps_jax.data import synthetic

CONFIG = config_flags.DEFINE_config_file(
  "config", None, "A file of configs/; change its fields with --config.NAME=VALUE."
)
WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run. A run found there goes on where it stopped."
)
MULTIHOST = flags.DEFINE_bool(
  "multihost", False, "Join the other processes that the launcher started."
)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Settings need --config.")
  console.listen()
  if MULTIHOST.value:
    distributed.initialise()
  config, workdir = CONFIG.value, pathlib.Path(WORKDIR.value)
  try:
    if config.data.synthetic and not config.data.root:
      config.data.root = str(draw(config, workdir / "data"))
    run = trainer.fit(config, workdir)
    results = inference.evaluate(run)
    if distributed.is_lead():
      evaluate.publish(results, run.folder / evaluate.RESULTS)
  except (ValueError, FileNotFoundError, FloatingPointError) as error:
    raise SystemExit(f"Error: {error}") from error


def draw(config, root: pathlib.Path) -> pathlib.Path:
  """Writes the synthetic data set, unless an earlier start has; returns its folder."""
  chosen = config.data.category
  names = synthetic.CATEGORIES if chosen == "all" else chosen.split(",")
  missing = [name for name in names if not (root / name).exists()]
  if missing and distributed.is_lead():
    synthetic.write(root, missing, seed=config.seed, size=config.image_size)
  distributed.barrier("synthetic data")
  return root


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main)
