"""Trains a small encoder on drawn scenes; it needs no photograph and no other weights.

python -m nps_jax.pretrain --config=configs/pretrain.py --workdir=DIR

Ends with DIR/encoder.safetensors, in torchvision's names, for config.encoder.weights.
The same command goes on where it was stopped. Exit status as of nps_jax.train.
"""

from collections.abc import Sequence
import pathlib
import sys

from absl import app
from absl import flags

from nps_jax import compiling
from nps_jax import console
from nps_jax.pretraining import training
from nps_jax.runs import interruption


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Settings need --config.")
  console.listen()
  compiling.prepare()
  try:
    interruption.listen()
    workdir = pathlib.Path(flags.FLAGS.workdir)
    training.fit(flags.FLAGS.config, workdir)
  except (ValueError, OSError, FloatingPointError) as error:
    raise SystemExit(f"Error: {error}") from error
  except KeyboardInterrupt:
    print("Stopped; start the same command again to go on.", file=sys.stderr)
    raise SystemExit(interruption.EXIT) from None
  print(f"Written: {workdir / training.FILE}")


if __name__ == "__main__":
  console.define_config(fields=("kits", "photographs"))
  flags.DEFINE_string("workdir", None, "Folder of the training.")
  flags.mark_flag_as_required("workdir")
  with interruption.leaving():
    console.run(main)
