"""What a training is expected to take here: seconds and memory of each of its parts.

A short measurement gives rates, and counting does the rest: images, steps, patches and
pixels, by the laws of nps_jax.benchmarking.laws.
"""

from collections.abc import Sequence
import math
import os
import pathlib
import re
import time
from typing import Any

import jax
import ml_collections

from nps_jax import allowed
from nps_jax import config as settings
from nps_jax.benchmarking import laws
from nps_jax.benchmarking import parts
from nps_jax.benchmarking import rates as measuring
from nps_jax.benchmarking import subjects
from nps_jax.benchmarking import timing
from nps_jax.data import decoding
from nps_jax.data import records
from nps_jax.data import sources
from nps_jax.drawn import synthetic

SPLITS = ("train", "validation", "test")
FULL = 0.9  # of a machine's memory, from which on it may be too little
ANY = "any"  # a category that only its counts are known of

Told = tuple[laws.Counts, tuple[int, int]]  # counts; height and width of the images


def told(counts: str, pixels: str) -> Told | None:
  """What --counts and --pixels say; None where there are no counts.

  Raises:
    ValueError: they are not as expected.
  """
  if not counts:
    return None
  numbers = re.fullmatch(r"(\d+),(\d+),(\d+)", counts)
  sides = re.fullmatch(r"(\d+)x(\d+)", pixels)
  if not numbers or not int(numbers[1]):
    raise ValueError(
      f"--counts is {counts!r}; expected TRAIN,VALIDATION,TEST, such as 335,60,330."
    )
  if not sides or not int(sides[1]) or not int(sides[2]):
    raise ValueError(f"--pixels is {pixels!r}; expected HEIGHTxWIDTH, as 1024x1024.")
  size = int(sides[1]), int(sides[2])
  return laws.Counts(ANY, *map(int, numbers.groups()), pixels=math.prod(size)), size


def estimate(
  config: ml_collections.ConfigDict,
  stated: Told | None = None,
  separately: bool = False,
) -> dict[str, Any]:
  """What a training of the config is expected to take, ready for JSON.

  Args:
    stated: counts, and the size of images, in place of data.
    separately: each category is a training of its own.

  Raises:
    ValueError, FileNotFoundError: a setting is wrong, or the data are.
  """
  allowed.validate(config)
  if stated is not None:
    counts, pictures = [stated[0]], parts.pictures(measuring.SHOWN, stated[1])
  elif config.data.synthetic and not config.data.root:
    size = settings.image_shape(config)
    counts, pictures = drawn(config), parts.pictures(measuring.SHOWN, size)
  else:
    datasets = sources.open_all(config.data, config.seed)
    sources.settle(config, datasets)
    counts, pictures = counts_of(datasets), datasets[0].train
  return of_counts(config, counts, pictures, separately)


def drawn(config: ml_collections.ConfigDict) -> list[laws.Counts]:
  """The counts of what a training would draw.

  Raises:
    ValueError: there is no such product.
  """
  names = config.data.category
  pixels = max(settings.image_shape(config)) ** 2
  counts, numbers = [], synthetic.Counts()
  for name in synthetic.CATEGORIES if names == "all" else names.split(","):
    if name not in synthetic.PRODUCTS:
      raise ValueError(
        f"There is no drawn product {name!r}; there are "
        f"{', '.join(synthetic.CATEGORIES)}. To look at data, set config.data.root."
      )
    product = synthetic.PRODUCTS[name]
    test = numbers.good + len(product.FLAWS) * numbers.per_flaw
    test += len(product.PAIRS) * (numbers.per_flaw // 3)
    counts.append(laws.Counts(name, numbers.train, numbers.validation, test, pixels))
  return counts


def counts_of(datasets: Sequence[records.Dataset]) -> list[laws.Counts]:
  """The counts of data sets; test images are taken to be as large as the first."""
  counts = []
  for data in datasets:
    first = (*data.test, *data.train)[0]
    numbers = (len(getattr(data, split)) for split in SPLITS)
    pixels = math.prod(decoding.original_size(first))
    counts.append(laws.Counts(data.category, *numbers, pixels))
  return counts


def of_counts(
  config: ml_collections.ConfigDict,
  counts: Sequence[laws.Counts],
  pictures: Sequence[records.Record],
  separately: bool = False,
) -> dict[str, Any]:
  """The same of counts; pictures are some of the images."""
  start = time.perf_counter()
  config = subjects.settled(config)
  images = max(count.train for count in counts)
  rates = measuring.measure(config, images, pictures)
  seconds = time.perf_counter() - start
  groups = [[count] for count in counts] if separately else [list(counts)]
  runs = [_run(config, group, rates) for group in groups]
  machine = {"host_mib": host_mib(), "device_mib": device_mib()}
  return {
    "device": timing.device(),
    "image_size": list(settings.image_shape(config)),
    "measured_seconds": round(seconds, 1),
    "runs": runs,
    "seconds": round(sum(run["seconds"] for run in runs), 1),
    "machine": machine,
    "warnings": warnings(runs, machine),
  }


def _run(
  config: ml_collections.ConfigDict,
  counts: Sequence[laws.Counts],
  rates: measuring.Rates,
) -> dict[str, Any]:
  """What one training of these categories takes, ready for JSON."""
  overlaps = jax.default_backend() != "cpu"
  costs = laws.expected(config, counts, rates, overlaps=overlaps)
  return {
    "categories": [count.category for count in counts],
    "images": {split: sum(getattr(c, split) for c in counts) for split in SPLITS},
    "parts": {
      part: {
        "seconds": round(cost.seconds, 3),
        "host_mib": round(cost.host_mib),
        "device_mib": round(cost.device_mib),
      }
      for part, cost in costs.items()
    },
    "seconds": round(sum(costs[part].seconds for part in laws.TRAINING), 1),
    "host_mib": round(max(cost.host_mib for cost in costs.values())),
    "device_mib": round(max(cost.device_mib for cost in costs.values())),
  }


def host_mib() -> int:
  """MiB of this machine, or of the part of it that this process may have."""
  whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  for place in ("memory.max", "memory/memory.limit_in_bytes"):
    try:
      limit = pathlib.Path("/sys/fs/cgroup", place).read_text().strip()
    except OSError:
      continue
    whole = min(whole, int(limit)) if limit.isdecimal() else whole
  return whole // 2**20


def device_mib() -> int:
  """MiB that JAX may have of a device; of one without its own, those of the host."""
  about = jax.devices()[0].memory_stats()
  return about["bytes_limit"] // 2**20 if about else host_mib()


def warnings(runs: Sequence[dict[str, Any]], machine: dict[str, int]) -> list[str]:
  """What is expected to need more memory than there is, with what to do."""
  texts = []
  for run in runs:
    for where, there in machine.items():
      part, cost = max(run["parts"].items(), key=lambda item: item[1][where])
      if cost[where] > FULL * there:
        name = where.removesuffix("_mib")
        texts.append(
          f"{', '.join(run['categories'])}: the part {part} is expected to need "
          f"{cost[where]} MiB of the {name}'s {there} MiB. Lower config.image_size, "
          "config.codebook.memory or config.train.feature_cache, or use a machine "
          "with more."
        )
  return texts


def to_text(expected: dict[str, Any]) -> str:
  """The same as a table for people."""
  height, width = expected["image_size"]
  lines = [
    f"Expected on {expected['device']}, {height} x {width} pixels (measured in "
    f"{expected['measured_seconds']:.0f} s):"
  ]
  for run in expected["runs"]:
    images = ", ".join(f"{split} {count}" for split, count in run["images"].items())
    lines.append(f"  {', '.join(run['categories'])} ({images})")
    for part, cost in (run["parts"] | {"together": run}).items():
      seconds = f"{cost['seconds']:.0f} s"
      if part == laws.PARTS[-1]:
        seconds = f"{cost['seconds']:.3f} s an image"
      lines.append(
        f"    {part:<10} {seconds:<17} {cost['host_mib']:6} MiB of the host, "
        f"{cost['device_mib']:6} of the device"
      )
  if len(expected["runs"]) > 1:
    lines.append(f"  all of these {expected['seconds']:.0f} s")
  return "\n".join([*lines, *(f"  Warning: {text}" for text in expected["warnings"])])
