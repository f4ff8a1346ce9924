"""The first steps of a prediction, each with its seconds, in a process of its own.

python -m nps_jax.benchmarking.opening RUN IMAGE CATEGORY OUT
"""

import itertools
import json
import pathlib
import sys
import time


def main(run: str, image: str, category: str, out: str) -> None:
  """Writes the seconds of each step to `out`, as JSON."""
  marks = [time.perf_counter()]
  # Here, as their import is what is timed.
  from nps_jax import compiling  # noqa: PLC0415
  from nps_jax import inference  # noqa: PLC0415
  from nps_jax import predicting  # noqa: F401, PLC0415
  from nps_jax import watching  # noqa: F401, PLC0415
  from nps_jax.data import unlabelled  # noqa: PLC0415

  marks.append(time.perf_counter())
  compiling.prepare()
  opened = inference.open_run(pathlib.Path(run))
  marks.append(time.perf_counter())
  for _ in range(2):  # only the first time it is compiled
    list(inference.scores(opened, unlabelled.images([image]), category))
    marks.append(time.perf_counter())
  imports, opening, first, second = (
    end - start for start, end in itertools.pairwise(marks)
  )
  steps = {
    "imports": imports,
    "opening": opening,
    "compiling": max(0.0, first - second),
    "image": second,
  }
  pathlib.Path(out).write_text(json.dumps(steps), encoding="utf-8")


if __name__ == "__main__":
  main(*sys.argv[1:])
