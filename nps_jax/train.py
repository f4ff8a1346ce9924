"""Trains a detector and evaluates it.

python -m nps_jax.train --config=configs/loco.py --workdir=DIR --config.data.root=ROOT

Exit status: 0 at the end, 1 on an error, 75 if SIGTERM or SIGINT stopped it.
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import app
from absl import flags
from absl import logging

from nps_jax import compiling
from nps_jax import config as settings
from nps_jax import console
from nps_jax import distributed
from nps_jax import evaluating
from nps_jax import inference
from nps_jax import publishing
from nps_jax import trainer
from nps_jax.drawn import synthetic
from nps_jax.report import table
from nps_jax.runs import files
from nps_jax.runs import interruption

CONFIG = console.define_config()
WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder of the run. A run found there goes on where it stopped."
)
TRAINED = flags.DEFINE_string(
  "trained",
  None,
  "Folder of a run that has ended, differing only in scoring; takes its training over.",
)
MULTIHOST = flags.DEFINE_bool(
  "multihost", False, "Join the other processes that the launcher started."
)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Settings need --config.")
  console.listen()
  compiling.prepare()
  try:
    if MULTIHOST.value:
      distributed.initialise()
    interruption.listen()  # after JAX, which would take SIGTERM for its own
    config, workdir = console.chosen(CONFIG.name), files.local(WORKDIR.value)
    trained = pathlib.Path(TRAINED.value) if TRAINED.value else None
    if config.data.synthetic and not config.data.root:
      config.data.root = str(draw(config, workdir / "data"))
    finish(trainer.fit(config, workdir, trained))
  except (ValueError, OSError, FloatingPointError) as error:
    raise SystemExit(f"Error: {error}") from error
  except KeyboardInterrupt:
    print("Stopped; start the same command again to go on.", file=sys.stderr)
    raise SystemExit(interruption.EXIT) from None


def finish(run: inference.Run) -> None:
  """Evaluates a trained run, unless its results are there."""
  path = run.folder / files.RESULTS
  if distributed.all_hosts(path.exists()):
    logging.info("This run has ended before; evaluate --run --overwrite measures anew.")
    if distributed.is_lead():
      table.show(path)
    return
  measured = evaluating.evaluate(run)
  if distributed.is_lead():
    publishing.publish(measured, path)


def draw(config, root: pathlib.Path) -> pathlib.Path:
  """Writes the synthetic data set, unless an earlier start has; returns its folder."""
  chosen = config.data.category
  names = synthetic.CATEGORIES if chosen == "all" else chosen.split(",")
  missing = [name for name in names if not (root / name).exists()]
  size = max(settings.image_shape(config))
  if missing and distributed.is_lead():
    synthetic.write(root, missing, seed=config.seed, size=size)
  distributed.barrier("synthetic data")
  return root


if __name__ == "__main__":
  flags.mark_flag_as_required("workdir")
  with interruption.leaving():
    console.run(main)
