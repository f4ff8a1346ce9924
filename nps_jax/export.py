"""Writes a run as a folder that runs elsewhere: ONNX, or StableHLO.

python -m nps_jax.export --run=DIR --out=FOLDER --format=onnx
"""

import argparse
from collections.abc import Sequence
import pathlib

from nps_jax import compiling
from nps_jax import console
from nps_jax import inference
from nps_jax import predict
from nps_jax.data import unlabelled
from nps_jax.exporting import checking
from nps_jax.exporting import folder


def _platforms(text: str) -> tuple[str, ...]:
  names = tuple(text.split(","))
  if strange := sorted(set(names) - set(folder.PLATFORMS)):
    allowed = ", ".join(folder.PLATFORMS)
    message = f"{', '.join(strange)!r}: expected some of {allowed}, commas between"
    raise argparse.ArgumentTypeError(message)
  return names


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  """The flags; exits with the usage where they are wrong."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  add = parser.add_argument
  add("--run", required=True, type=pathlib.Path, help="folder of a trained run")
  add("--out", required=True, type=pathlib.Path, help="a new or empty folder")
  add("--format", required=True, choices=(folder.ONNX, folder.STABLEHLO))
  add("--category", help="of the run's categories, the one to export")
  add(
    "--images",
    nargs="+",
    default=[],
    help="files and folders to try the export on; default: those of the run",
  )
  add(
    "--platforms",
    type=_platforms,
    default=folder.PLATFORMS,
    help="of StableHLO (default: cpu,cuda,tpu)",
  )
  predict.add_threshold(parser)
  return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
  """Writes a run as a folder that runs elsewhere: ONNX, or StableHLO."""
  console.listen()
  compiling.prepare()
  flags = parse(arguments)
  try:
    folder.check_out(flags.out)
    run = inference.open_run(flags.run)
    category = predict.choose_category(run, flags.category)
    limit, meaning = predict.choose_threshold(run, category, flags)
    if flags.images:
      images = unlabelled.images(flags.images)
    else:
      images = checking.own_images(run, category)
    wanted = folder.Wanted(category, flags.format, limit, flags.platforms)
    compared = folder.write(run, images, flags.out, wanted)
  except ModuleNotFoundError as error:
    raise SystemExit(
      f"Error: {error.name} is not installed; pip install 'nps_jax[onnx]'."
    ) from error
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  print(
    f"{compared.images} images scored both ways: scores and maps differ by up to "
    f"{compared.difference:.2g}, {compared.flips} verdicts flip."
  )
  print(f"Above {limit:.2f} {category} is anomalous{meaning}. See {flags.out}")


if __name__ == "__main__":
  main()
