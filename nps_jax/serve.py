"""Answers over HTTP with scores of the images that it is sent.

python -m nps_jax.serve --run=DIR --port=8000
"""

import argparse
from collections.abc import Callable, Sequence
import pathlib

from PIL import Image

from nps_jax import compiling
from nps_jax import console
from nps_jax import inference
from nps_jax import predict
from nps_jax import ready
from nps_jax.runs import interruption

try:
  from nps_jax.serving import admission
  from nps_jax.serving import app
  from nps_jax.serving import connections
except ModuleNotFoundError as error:  # the extra is not installed
  raise SystemExit(
    f"Error: {error.name} is not installed; pip install 'nps_jax[serve]'."
  ) from error

MEGA = 10**6
MOST = Image.MAX_IMAGE_PIXELS // MEGA  # megapixels; above, no command reads an image


def _whole(low: int, high: int) -> Callable[[str], int]:
  """A reader of whole numbers within these bounds."""

  def read(text: str) -> int:
    if not text.isdecimal() or not low <= int(text) <= high:
      message = f"{text!r}: expected a whole number from {low} to {high}"
      raise argparse.ArgumentTypeError(message)
    return int(text)

  return read


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
  """The flags; exits with the usage where they are wrong."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  add, shown = parser.add_argument, "(default: %(default)s)"
  add("--run", required=True, type=pathlib.Path, help="folder of a trained run")
  add("--category", help="of the run's categories, the one that the images show")
  add("--host", default="127.0.0.1", help=f"0.0.0.0: reached from elsewhere {shown}")
  add("--port", default=8000, type=_whole(0, 65535), help=f"0: any free one {shown}")
  add(
    "--token-file",
    type=pathlib.Path,
    help=f"what clients must show; else the variable {admission.TOKEN}, if it is set",
  )
  add(
    "--queue",
    default=64,
    type=_whole(1, 10_000),
    help=f"images that may wait; others are answered with 429 {shown}",
  )
  add(
    "--max-megabytes",
    default=32,
    type=_whole(1, 1000),
    help=f"of a request {shown}",
  )
  add(
    "--max-megapixels",
    default=40,
    type=_whole(1, MOST),
    help=f"of an image {shown}",
  )
  predict.add_threshold(parser)
  return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
  """Answers over HTTP with scores of the images that it is sent."""
  console.listen()
  compiling.prepare()
  flags = parse(arguments)
  limits = admission.Limits(
    bytes=flags.max_megabytes * MEGA,
    pixels=flags.max_megapixels * MEGA,
    images=flags.queue,
  )
  interruption.listen()
  try:
    token = admission.read_token(flags.token_file)
    run = inference.open_run(flags.run)
    category = predict.choose_category(run, flags.category)
    limit, meaning = predict.choose_threshold(run, category, flags)
    scorer = ready.Scorer(run, category)
    if scorer.looks_by_name:
      raise ValueError(
        f"{flags.run} has a region for each image, by its name, which the images of "
        "requests do not have. Train with one region for all, to serve it."
      )
    scorer.warm()
    service = app.Service(scorer, limit, limits, token)
    with connections.listen(flags.host, flags.port) as own:
      host, port = own.getsockname()[:2]
      place = f"[{host}]" if ":" in host else host
      print(f"Scores {category}: anomalous is what is above {limit:.2f}{meaning}.")
      open_to = "" if token else ", without a token: whoever reaches it may ask"
      print(f"Listening at http://{place}:{port}{open_to}", flush=True)
      connections.server(service.application()).run(sockets=[own])
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  except KeyboardInterrupt:  # a signal, which the server has heeded by now
    print("Stopped; what was begun has been answered.")


if __name__ == "__main__":
  main()
