"""Scores any images with a run.

python -m nps_jax.predict --run=DIR --images=FOLDER_OR_FILES --out=OUT
python -m nps_jax.predict --run=DIR --watch=FOLDER --out=OUT  # what arrives there
"""

import argparse
from collections.abc import Callable, Sequence
import math
import pathlib
import sys

from nps_jax import compiling
from nps_jax import console
from nps_jax import inference
from nps_jax import predicting
from nps_jax import scoring
from nps_jax import verdict
from nps_jax import watching
from nps_jax.data import regions
from nps_jax.data import unlabelled
from nps_jax.runs import interruption

DIGITS = 9  # of a threshold after the point: 1, not 1.0000000000000002


def choose_category(run: inference.Run, name: str | None) -> str:
  """The category asked for, or the only one.

  Raises:
    ValueError: the run does not have it, or has several and none was named.
  """
  known = run.about.categories
  if name is None and len(known) == 1:
    return known[0]
  if name not in known:
    raise ValueError(
      f"--category is {name!r}; this run knows {', '.join(known)}. Name the one that "
      "the images show."
    )
  return name


def promised(run: inference.Run, category: str, rate: float) -> tuple[float, str]:
  """The threshold of a false-alarm rate, and how certain it is, in words."""
  found = verdict.threshold(run.calibrations[category].normal[scoring.SCORE], rate)
  return round(found.value, DIGITS), (
    f", where {100 * rate:g} in 100 normal images are to be expected; the threshold is "
    f"certain to be (90 %) between {found.low:.2f} and {found.high:.2f}"
  )


def _rate(text: str) -> float:
  return _number(text, lambda value: 0 < value < 1, "above 0 and below 1, such as 0.01")


def _score(text: str) -> float:
  return _number(text, lambda value: value >= 0, "of 0 or more, such as 1.5")


def _number(text: str, holds: Callable[[float], bool], allowed: str) -> float:
  try:
    value = float(text)
  except ValueError:
    value = math.nan
  if not holds(value):
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number {allowed}")
  return value


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  """The flags; exits with the usage where they are wrong."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  add = parser.add_argument
  add("--run", required=True, type=pathlib.Path, help="folder of a trained run")
  add("--images", nargs="+", action="extend", default=[], help="files and folders")
  add("--watch", type=pathlib.Path, metavar="FOLDER", help="score what arrives in it")
  add("more", nargs="*", default=[], metavar="IMAGES", help=argparse.SUPPRESS)
  add("--out", required=True, type=pathlib.Path, help="a new or empty folder")
  add("--category", help="of the run's categories, the one that the images show")
  add(
    "--region",
    metavar="PLACE",
    help="image of where to look, or a folder with one for each; default: the run's",
  )
  add("--no-maps", action="store_true", help="write no maps/ID.tiff")
  add("--no-overlays", action="store_true", help="write no overlays/ID.png")
  add("--strict", action="store_true", help="fail in the end if any was left out")
  earlier = parser.add_mutually_exclusive_group()
  earlier.add_argument(
    "--overwrite", action="store_true", help="replace an earlier prediction in --out"
  )
  earlier.add_argument(
    "--resume",
    action="store_true",
    help="go on with an earlier prediction in --out, if there is one",
  )
  add_threshold(parser)
  flags = parser.parse_intermixed_args(arguments)
  flags.images += flags.more  # --images=A B
  if bool(flags.images) == (flags.watch is not None):
    parser.error("give --images or --watch, one of the two")
  if flags.watch and flags.strict:
    parser.error("--strict is of --images: --watch has no end at which to fail")
  return flags


def add_threshold(parser: argparse.ArgumentParser) -> None:
  """Adds --false-alarms and --threshold, which `choose_threshold` reads."""
  limit = parser.add_mutually_exclusive_group()
  limit.add_argument(
    "--false-alarms",
    type=_rate,
    default=verdict.RATE,
    metavar="RATE",
    help="share of normal images that may be called anomalous (default: %(default)s)",
  )
  limit.add_argument(
    "--threshold", type=_score, help="score above which an image is anomalous instead"
  )


def choose_threshold(
  run: inference.Run, category: str, flags: argparse.Namespace
) -> tuple[float, str]:
  """The score above which an image is anomalous, and what it means, in words."""
  if flags.threshold is not None:
    return flags.threshold, ""
  return promised(run, category, flags.false_alarms)


def watch(
  run: inference.Run,
  category: str,
  flags: argparse.Namespace,
  wanted: predicting.Wanted,
) -> None:
  """Scores what arrives until a signal says that it is enough."""
  limit, meaning = choose_threshold(run, category, flags)
  with interruption.Watch("stopping when the images at hand are scored") as signals:
    watcher = watching.Watcher(run, category, flags.watch, flags.out, wanted, limit)
    print(f"Watching {flags.watch}; anomalous is what is above {limit:.2f}{meaning}.")
    print("Ctrl-C ends it; the same command goes on.", flush=True)
    watcher.watch(lambda: signals.asked)
  done = watcher.done()
  print(f"{done.scored} images scored, {done.anomalous} anomalous, ", end="")
  print(f"{done.left_out} that cannot be. See {flags.out / predicting.SCORES}")


def main(arguments: Sequence[str] | None = None) -> None:
  """Scores any images with a run; needs no labels."""
  console.listen()
  compiling.prepare()
  flags = parse(arguments)
  wanted = predicting.Wanted(
    not flags.no_maps, not flags.no_overlays, flags.overwrite, flags.resume
  )
  try:
    if flags.watch and flags.region:
      raise ValueError("--region goes with --images; --watch looks where the run does.")
    images = () if flags.watch else unlabelled.images(flags.images)
    run = inference.open_run(flags.run)
    bits = run.about.config.data.bits
    images = tuple(record._replace(bits=bits) for record in images)
    place = flags.region or regions.of_run(run.folder, run.about.config.data.region)
    images = regions.attach(images, place) if place else images
    category = choose_category(run, flags.category)
    if flags.watch:
      watch(run, category, flags, wanted)
      return
    limit, meaning = choose_threshold(run, category, flags)
    done = predicting.predict(run, images, category, flags.out, wanted, limit)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  except KeyboardInterrupt:
    print("Stopped; the same command with --resume goes on.", file=sys.stderr)
    raise SystemExit(interruption.EXIT) from None
  print(f"{done.scored} images scored, {done.anomalous} anomalous: ", end="")
  print(f"above {limit:.2f}{meaning}.")
  print(f"See {flags.out / predicting.SCORES}")
  if done.left_out:
    errors = flags.out / predicting.ERRORS
    left = f"{done.left_out} images cannot be scored; see {errors}"
    if flags.strict:
      raise SystemExit(f"Error: {left}")
    print(left)


if __name__ == "__main__":
  with interruption.leaving():
    main()
