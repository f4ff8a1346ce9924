"""The official metrics of a run, or of anyone's anomaly maps.

python -m nps_jax.evaluate --run=DIR
python -m nps_jax.evaluate --maps=DIR --dataset=ROOT --category=NAME --out=FILE.json
"""

import argparse
from collections.abc import Sequence
import pathlib

from nps_jax import console
from nps_jax import publishing
from nps_jax.data import folder
from nps_jax.data import maps
from nps_jax.runs import files

EXAMPLE = """
Maps lie at MAPS/<category>/test/<kind>/<image>.tiff (or .tif, .npy), of any real type
and at the size of their image; higher is more anomalous. An image's score is its map's
maximum, or what --scores has for its id, which is <category>/test/<kind>/<image>. ROOT
is in the layout of MVTec LOCO AD (AU-sPRO) or MVTec AD (AU-PRO).
"""


def of_maps(flags: argparse.Namespace, out: pathlib.Path) -> None:
  """Publishes the results of a folder of maps.

  Raises:
    ValueError, FileNotFoundError: maps, scores or ground truth are missing or wrong;
      names the file.
  """
  names = folder.resolve(flags.dataset, flags.category or "all")
  if not flags.overwrite:
    publishing.check_absent(out, names)
  datasets = [
    folder.open_test_split(flags.dataset, name, layout=flags.layout) for name in names
  ]
  given = maps.read_scores(flags.scores, datasets) if flags.scores else None
  judged = [maps.judged(flags.maps, each, given) for each in datasets]
  facts = {"Maps": str(flags.maps), "Ground truth": str(flags.dataset)}
  facts |= {"Scores": str(flags.scores) if flags.scores else "the maps' maxima"}
  measured = [
    publishing.measure(data, rows, _options(flags), facts, scaled=False)
    for data, rows in zip(datasets, judged, strict=True)
  ]
  publishing.publish(measured, out)


def of_run(flags: argparse.Namespace, out: pathlib.Path) -> None:
  """Publishes the results of a trained run."""
  from nps_jax import compiling  # noqa: PLC0415 - seconds of imports, not for maps
  from nps_jax import evaluating  # noqa: PLC0415
  from nps_jax import inference  # noqa: PLC0415

  compiling.prepare()
  if not flags.overwrite:
    publishing.check_absent(out)
  run = inference.open_run(flags.run)
  names = evaluating.choose(run, flags.category)
  if not flags.overwrite:
    publishing.check_absent(out, names)
  measured = evaluating.evaluate(
    run,
    root=flags.dataset and str(flags.dataset),
    region=flags.region,
    categories=names,
    options=_options(flags),
  )
  publishing.publish(measured, out)


def _options(flags: argparse.Namespace) -> publishing.Options:
  return publishing.Options(flags.limits, flags.bootstrap, flags.seed)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  """The checked flags; exits with the usage where they do not fit together."""
  parser = argparse.ArgumentParser(
    description="Exact image AUROC, AU-sPRO or AU-PRO, pixel AUROC and AP.",
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  source = parser.add_mutually_exclusive_group(required=True)
  source.add_argument("--run", type=pathlib.Path, help="folder of a trained run")
  source.add_argument("--maps", type=pathlib.Path, help="folder of anomaly maps")
  add = parser.add_argument
  add("--dataset", type=pathlib.Path, metavar="ROOT", help="folder of the categories")
  add(
    "--scores",
    type=pathlib.Path,
    metavar="FILE.csv",
    help="image scores for --maps, with columns id and score; default: maps' maxima",
  )
  add("--category", help="one name, several with commas, or all (the default)")
  add("--region", metavar="PLACE", help="image or folder of where to look, if moved")
  add("--out", type=pathlib.Path, metavar="FILE.json", help="default: in the run")
  add("--overwrite", action="store_true", help="replace results that are there")
  add("--layout", choices=folder.LAYOUTS, default="auto", help="of ROOT, for --maps")
  add("--limits", type=_limits, help="of areas, such as 0.05,0.3; default: the field's")
  add(
    "--bootstrap",
    type=int,
    default=publishing.Options().bootstrap,
    help="samples for 95%% intervals of AUROC (default: %(default)s; 0: none)",
  )
  add("--seed", type=int, default=0, help="of the bootstrap")
  flags = parser.parse_args(arguments)
  if flags.maps and not (flags.dataset and flags.out):
    parser.error("--maps needs --dataset=ROOT, the images, and --out=FILE.json")
  if flags.scores and not flags.maps:
    parser.error("--scores goes with --maps; a run has scores of its own")
  if flags.maps and not flags.maps.is_dir():
    parser.error(f"--maps={flags.maps} is not a folder")
  if flags.out and flags.out.suffix != ".json":
    parser.error(f"--out={flags.out} must end in .json; .csv and .md go beside it")
  if flags.bootstrap < 0:
    parser.error(f"--bootstrap={flags.bootstrap} must be 0 or more, such as 1000")
  return flags


def _limits(text: str) -> tuple[float, ...]:
  try:
    limits = tuple(float(each) for each in text.split(","))
  except ValueError:
    limits = (0.0,)
  if not all(0 < each <= 1 for each in limits):
    raise argparse.ArgumentTypeError(
      f"{text!r}: expected numbers above 0 and at most 1, with commas between"
    )
  return limits


def main(arguments: Sequence[str] | None = None) -> None:
  """Scores the test images; writes results (.json, .csv, .md), scores, a page."""
  flags = parse(arguments)
  out = flags.out or flags.run / files.RESULTS
  console.listen()
  try:
    (of_run if flags.run else of_maps)(flags, out)
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
  main()
