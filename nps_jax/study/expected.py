"""What a sweep will take on this machine, before there are data: hours and memory.

python -m nps_jax.study.expected --config=loco --variants=ablation \
  --only=default,paper --runs=15 --counts=356,61,314 --pixels=1280x1600

Of each variant a run of so many images is measured in small, by `nps_jax.benchmark
estimate`. A variant that differs from an earlier one only in what is read after the
training is taken to need what comes after that one's training, which is an upper bound.
"""

import argparse
from collections.abc import Mapping, Sequence
import json
import math
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

from nps_jax import config as settings
from nps_jax import console
from nps_jax.study import plan
from nps_jax.study import variants

PARTS = ("features", "train", "calibrate", "evaluate")
AFTER = ("calibrate", "evaluate")  # the training


class Expected(NamedTuple):
  """One run of a variant."""

  variant: str
  seconds: dict[str, float]  # by part
  host: float  # MiB, at its highest
  device: float
  taken: str  # the variant whose training it takes over, or ""


def estimate(flags: argparse.Namespace, rest: Sequence[str]) -> tuple[dict, list]:
  """The machine, as the last estimate has it, and a run of each variant asked for.

  Raises:
    ValueError, OSError: config or variants are wrong, or an estimate failed.
  """
  file, config, overrides = plan.load(rest)
  fields = variants.read(pathlib.Path(console.find(flags.variants, "variants")))
  configs, runs, machine = {}, [], {}
  for name in variants.choose(tuple(fields), flags.only):
    configs[name] = variants.changed(config, name, fields[name])
    like = next(
      (old.variant for old in runs if not old.taken and _alike(configs, old, name)), ""
    )
    if like:
      (same,) = (old for old in runs if old.variant == like)
      spent = {part: same.seconds[part] for part in AFTER}
      runs.append(same._replace(variant=name, seconds=spent, taken=like))
      continue
    values = settings.leaves(configs[name])
    given = overrides | {field: values[field] for field in fields[name]}
    machine = _measure(file, given, flags)
    (run,) = machine["runs"]
    seconds = {part: run["parts"][part]["seconds"] for part in PARTS}
    runs.append(Expected(name, seconds, run["host_mib"], run["device_mib"], taken=""))
  return machine, runs


def _alike(configs: Mapping, old: Expected, name: str) -> bool:
  """Whether an earlier variant's training is also that of the named one."""
  first, second = (settings.leaves(configs[one]) for one in (old.variant, name))
  return all(
    settings.is_scored(field) or first[field] == second[field] for field in first
  )


def _measure(file: str, fields: Mapping[str, Any], flags: argparse.Namespace) -> dict:
  """What `nps_jax.benchmark estimate` says of these settings."""
  words = [variants.flag(field, value) for field, value in fields.items()]
  command = [sys.executable, "-m", "nps_jax.benchmark", "estimate", f"--config={file}"]
  command += [*words, f"--counts={flags.counts}", f"--pixels={flags.pixels}", "--json"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  if done.returncode:
    raise ValueError(done.stderr.strip().removeprefix("Error: "))
  return json.loads(done.stdout)


def tell(machine: Mapping, runs: Sequence[Expected], count: int, at_once: int) -> str:
  """The lines that say it.

  Args:
    count: of runs that each variant has.
    at_once: how many of them run at the same time, each on a device of its own.
  """
  lines = [f"Expected of {machine['device']}, from a measurement here:"]
  for run in runs:
    parts = ", ".join(f"{part} {_hours(run.seconds[part])}" for part in run.seconds)
    taken = f"; the training is {run.taken}'s" if run.taken else ""
    each = _hours(sum(run.seconds.values()))
    memory = f"{run.host / 1024:.1f} GiB, of the device {run.device / 1024:.1f} GiB"
    lines.append(f"  {run.variant}: {count} runs of {each} ({parts}{taken}); {memory}")
  rounds = math.ceil(count / at_once)
  total = rounds * sum(sum(run.seconds.values()) for run in runs)
  beside = f", {at_once} at once" if at_once > 1 else ""
  here = [
    f"{machine['machine'][name] / 1024:.0f}" for name in ("host_mib", "device_mib")
  ]
  lines.append(
    f"  In all {_hours(total)}{beside}. There are {here[0]} and {here[1]} GiB."
  )
  return "\n".join([*lines, *(f"  {warning}" for warning in machine["warnings"])])


def _hours(seconds: float) -> str:
  return f"{seconds / 3600:.1f} h" if seconds >= 360 else f"{seconds / 60:.1f} min"


def main(arguments: Sequence[str] | None = None) -> None:
  """Prints what a sweep will take on this machine."""
  parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False)
  add = parser.add_argument
  add("--variants", required=True, metavar="FILE.py", help="has get_variants()")
  add("--only", required=True, metavar="NAMES", help="of the variants")
  add("--runs", required=True, type=int, help="of each variant")
  add("--at-once", default=1, type=int, help="runs that go on at the same time")
  add("--counts", required=True, help="TRAIN,VALIDATION,TEST images of a run")
  add("--pixels", required=True, help="HEIGHTxWIDTH of their files")
  flags, rest = parser.parse_known_args(arguments)
  try:
    print(tell(*estimate(flags, rest), flags.runs, flags.at_once))
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error


if __name__ == "__main__":
  main()
