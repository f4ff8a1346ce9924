"""Measures the parts that were asked for, and tells what each of them costs."""

from collections.abc import Iterator, Sequence
import pathlib
import tempfile
from typing import Any, NamedTuple

import jax
import ml_collections

from nps_jax import distributed
from nps_jax import inference
from nps_jax import scoring
from nps_jax.benchmarking import metrics
from nps_jax.benchmarking import parts
from nps_jax.benchmarking import rival
from nps_jax.benchmarking import startup
from nps_jax.benchmarking import subjects
from nps_jax.benchmarking import timing
from nps_jax.models import encoder

PARTS = ("predict", "train", "input", "calibrate", "metrics", "startup")
RIVALS = ("torch",)


class Wanted(NamedTuple):
  """What is to be measured."""

  parts: Sequence[str]
  run: pathlib.Path | None = None  # that has been trained; None: one of random weights
  images: int = 200  # that the random one's priors are of
  batches: Sequence[int] = (1, 8)
  against: str = ""  # one of RIVALS, or nothing


def check(wanted: Wanted) -> None:
  """Makes sure that there is something to do, and that it can be done.

  Raises:
    ValueError: says what is wrong.
  """
  strange = sorted(set(wanted.parts) - set(PARTS))
  if strange or not wanted.parts:
    raise ValueError(
      f"{', '.join(strange) or 'Nothing'} cannot be measured; name some of "
      f"{', '.join(PARTS)}."
    )
  if wanted.images < 1 or not wanted.batches or min(wanted.batches) < 1:
    raise ValueError(
      f"--images is {wanted.images} and --batches {list(wanted.batches)}; expected "
      "numbers of 1 or more."
    )
  if wanted.against not in ("", *RIVALS):
    raise ValueError(f"--against is {wanted.against!r}; expected {', '.join(RIVALS)}.")
  if wanted.against and "predict" not in wanted.parts:
    raise ValueError("--against goes with the part predict, whose encoder it compares.")
  if wanted.against:
    rival.available()


def measure(
  config: ml_collections.ConfigDict, wanted: Wanted
) -> Iterator[parts.Result]:
  """The result of each part, as soon as it is there.

  Args:
    config: at whose sizes; not looked at where there is a trained run.

  Raises:
    ValueError, FileNotFoundError: nothing can be measured as wanted.
  """
  check(wanted)
  with tempfile.TemporaryDirectory() as temporary:
    folder = pathlib.Path(temporary)
    if wanted.run:
      run = inference.open_run(wanted.run)
      priors = next(iter(run.calibrations.values())).priors
    elif set(wanted.parts) == {"metrics"}:
      run = priors = None
    else:
      run = subjects.run(config, folder / "run")
      priors = subjects.priors(run, wanted.images)
    for part in wanted.parts:
      place = folder / part
      place.mkdir()
      yield _measure(part, run, priors, wanted, place)


def _measure(
  part: str,
  run: inference.Run,
  priors: scoring.Priors,
  wanted: Wanted,
  folder: pathlib.Path,
) -> parts.Result:
  """One part's result.

  Args:
    folder: for files, empty.
  """
  match part:
    case "predict":
      rivals = against_torch(run, wanted.batches) if wanted.against else {}
      return parts.predict(run, priors, wanted.batches, rivals)
    case "train":
      return parts.train(run)
    case "input":
      return parts.read(run)
    case "calibrate":
      return parts.calibrate(run, folder, wanted.images)
    case "metrics":
      return metrics.evaluate(folder)
    case _:
      if not wanted.run:
        run = startup.store(run, priors, folder / "data")
      return startup.startup(run, folder)


def against_torch(run: inference.Run, batches: Sequence[int]) -> dict[int, timing.Call]:
  """By batch a call of the run's encoder in PyTorch, which gives the same.

  Raises:
    ValueError: it does not, or PyTorch is not there.
  """
  config, calls = run.about.config.encoder, {}
  other = rival.Encoder(run.frozen["encoder"], config.name, run.about.deepest)
  model = encoder.build(config.name, run.about.deepest)
  for count in dict.fromkeys(map(distributed.round_up, batches)):
    images = parts.random_batch(run, count).image
    rows = other.tensor(images)
    if not calls:
      params = {"params": run.frozen["encoder"]}
      ours = jax.jit(model.apply)(params, encoder.normalise(images[:1]))
      rival.check(ours, other(rows[:1]))
    calls[count] = lambda rows=rows: other(rows)
  return calls


def to_text(result: dict[str, Any]) -> str:
  """A part's result as a few lines for people."""
  height, width = result["image_size"]
  peak = result["peak_mib"]
  lines = [
    f"{result['part']}: {height} x {width} pixels, {result['device']}; peak memory "
    + ", ".join(f"{where} {mib:.0f} MiB" for where, mib in peak.items() if mib)
  ]
  for count, row in result.get("batch", {}).items():
    (name, own), *others = row.items()
    cells = [f"batch {count:>4}", f"{_named(name)} {own:9.2f} ms an image"]
    cells += [f"{_named(other)} {ms:.2f} ms ({own / ms:.2f} x)" for other, ms in others]
    lines.append("  " + "   ".join([*cells, f"{1000 / own:.1f} images/s"]))
  if len(result.get("batch", {})) > 1:
    best = min(result["batch"], key=lambda at: next(iter(result["batch"][at].values())))
    own = next(iter(result["batch"][best].values()))
    lines.append(f"  best at batch {best}: {1000 / own:.1f} images/s")
  lines += _seconds(result.get("seconds", {}))
  return "\n".join(lines)


def _named(name: str) -> str:
  return name.removesuffix("_ms")


def _seconds(seconds: dict[str, Any]) -> list[str]:
  """Lines of seconds by name; of names that have several, a line each."""
  if any(isinstance(value, dict) for value in seconds.values()):
    return [
      f"  {name}: " + ", ".join(f"{step} {value:.2f} s" for step, value in row.items())
      for name, row in seconds.items()
    ]
  text = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
  return [f"  {text}"] if text else []
