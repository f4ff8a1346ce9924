"""Time and memory of the project's parts on this machine, or of a training to come.

python -m nps_jax.benchmark predict --run=DIR
python -m nps_jax.benchmark predict train --config=loco --images=335 --against=torch
python -m nps_jax.benchmark estimate --config=folder --config.data.root=DATA

Without --run: untrained, at the config's sizes, with the memory of --images. --json: an
object a line.
"""

from collections.abc import Sequence
import json
import pathlib

from absl import flags

from nps_jax import compiling
from nps_jax import console
from nps_jax import estimating
from nps_jax.benchmarking import running

DEFAULT = "synthetic"  # the config where none is named
ESTIMATE = "estimate"


def wanted(named: Sequence[str]) -> running.Wanted:
  """What the flags, and the parts that are named, ask for.

  Raises:
    ValueError: --batches is no list of numbers.
  """
  values = flags.FLAGS
  try:
    batches = tuple(int(count) for count in values.batches)
  except ValueError as error:
    raise ValueError(f"--batches is {values.batches}; expected numbers.") from error
  return running.Wanted(
    parts=tuple(dict.fromkeys([*named, *values.parts])),
    run=pathlib.Path(values.run) if values.run else None,
    images=values.images,
    batches=batches,
    against=values.against,
  )


def main(argv: Sequence[str]) -> None:
  console.listen()
  compiling.prepare()
  values, named = flags.FLAGS, argv[1:]
  try:
    config = console.chosen("config")
    if named == [ESTIMATE]:
      told = estimating.estimate(
        config, estimating.told(values.counts, values.pixels), values.separately
      )
      print(json.dumps(told) if values.json else estimating.to_text(told))
      return
    for result in running.measure(config, wanted(named)):
      print(json.dumps(result) if values.json else running.to_text(result), flush=True)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error


def define() -> None:
  """Defines the command's flags."""
  console.define_config()
  add = flags.DEFINE_string
  flags.DEFINE_list("parts", [], f"Some of {', '.join(running.PARTS)}; or name them.")
  add("run", None, "Folder of a trained run to measure.")
  flags.DEFINE_integer("images", 200, "Training images that the memory is of.")
  flags.DEFINE_list("batches", ["1", "8"], "Images at once, of the part predict.")
  add("against", "", "torch: the bare encoder in PyTorch too, where it is installed.")
  flags.DEFINE_bool("json", False, "Print JSON objects instead of tables.")
  add("counts", "", "estimate: TRAIN,VALIDATION,TEST images, in place of data.")
  add("pixels", "1024x1024", "estimate: HEIGHTxWIDTH of these.")
  flags.DEFINE_bool("separately", False, "estimate: each category as a run of its own.")


if __name__ == "__main__":
  define()
  console.run(main, DEFAULT)
