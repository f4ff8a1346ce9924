"""What a sweep is asked to run: its flags, checked before anything is written."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

from absl import flags as absl_flags
import ml_collections
from ml_collections import config_flags

from nps_jax import allowed
from nps_jax import config as settings
from nps_jax import console
from nps_jax.data import folder
from nps_jax.drawn import synthetic
from nps_jax.study import variants

UNIFIED = "unified"  # folder of one model of all the categories
USAGE = """
All --config flags go to each training; a variant's fields replace them. Give --seeds
and --categories instead of --config.seed and --config.data.category.
"""


class Run(NamedTuple):
  """One training."""

  name: str  # its folder within the sweep's
  variant: str
  categories: tuple[str, ...]
  seed: int
  folder: pathlib.Path
  config: ml_collections.ConfigDict  # the settings that its config.json must hold
  command: tuple[str, ...]  # the module that does it, and the flags of its settings


class Sweep(NamedTuple):
  """All the runs, and what they are for."""

  out: pathlib.Path
  command: tuple[str, ...]
  config: ml_collections.ConfigDict
  drawn: bool  # whether the data are drawn into the sweep's folder
  categories: tuple[str, ...]
  seeds: tuple[int, ...]
  variants: Mapping[str, variants.Fields]
  owner: Mapping[str, str]  # the first variant of the same settings: it has the runs
  asked: tuple[str, ...]  # variants that --only names; of others, what is there counts
  runs: tuple[Run, ...]  # of the owners
  job: str  # what is asked for, one of JOBS


JOBS = ("all", "ahead", "part", "tables")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """The sweep's own flags, and all others; wrong ones of its own end in the usage."""
  parser = argparse.ArgumentParser(
    prog="python -m nps_jax.sweep",
    description="Many trainings from one config, and one table of their results.",
    epilog=USAGE,
    allow_abbrev=False,
  )
  add = parser.add_argument
  add("--out", required=True, type=pathlib.Path, help="folder of the runs and tables")
  add("--variants", metavar="FILE.py", help="has get_variants(); ablation is one")
  add("--only", metavar="NAMES", help="of the variants, commas between them")
  add("--categories", default="all", metavar="NAMES", help="default: all")
  add("--seeds", type=_seeds, default=(0, 1, 2), help="default: 0,1,2")
  add("--rivals", action="store_true", help="measure two simple detectors, too")
  add("--unified", action="store_true", help="one model of all the categories")
  add = parser.add_mutually_exclusive_group().add_argument
  add("--ahead", action="store_true", help="only fetch weights and CLIP's vectors")
  add("--part", type=_part, metavar="K/N", help="only part K of N, from 0; no tables")
  add("--tables", action="store_true", help="only write the tables of what is there")
  return parser.parse_known_args(arguments)


def _part(text: str) -> tuple[int, int]:
  at, _, count = text.partition("/")
  if not all(number.isascii() and number.isdigit() for number in (at, count)):
    raise argparse.ArgumentTypeError(f"{text!r}: expected K/N, such as 0/5")
  if int(at) >= int(count):
    raise argparse.ArgumentTypeError(f"{text!r}: parts of {count} count from 0 on")
  return int(at), int(count)


def _seeds(text: str) -> tuple[int, ...]:
  numbers = [number.strip() for number in text.split(",")]
  if not all(number.isascii() and number.isdigit() for number in numbers):
    raise argparse.ArgumentTypeError(
      f"{text!r}: expected whole numbers from 0 on, commas between, such as 0,1,2"
    )
  seeds = tuple(int(number) for number in numbers)
  if len(set(seeds)) < len(seeds):
    raise argparse.ArgumentTypeError(f"{text!r} has a seed twice")
  return seeds


def load(
  arguments: Sequence[str],
) -> tuple[str, ml_collections.ConfigDict, dict[str, Any]]:
  """The config's file, the config under its flags, and what these flags set.

  Raises:
    ValueError: a flag is unknown or its value wrong, or there is no --config.
  """
  values, argv = absl_flags.FlagValues(), ["sweep", *arguments]
  console.define_config(values, argv)
  left = console.read(argv, values)[1:]
  config = console.chosen("config", values)
  given = dict(config_flags.get_override_values(values["config"]))
  try:
    allowed.validate(config)
  except TypeError as error:
    raise ValueError(f"The flags cannot be read: {error}") from error
  file = console.find(config_flags.get_config_filename(values["config"]))
  if left:
    raise ValueError(
      f"Unexpected arguments: {left}. Settings need --config.NAME=VALUE."
    )
  for field, instead in (("seed", "--seeds"), ("data.category", "--categories")):
    if field in given:
      raise ValueError(f"--config.{field} is given; a sweep has {instead} for that.")
  return file, config, given


def make(arguments: Sequence[str]) -> Sweep:
  """Checks all that can be checked beforehand, and lists the runs; writes nothing.

  Raises:
    ValueError, OSError: flags, config, variants or data are wrong or missing.
  """
  flags, setting_flags = parse(arguments)
  file, config, overrides = load(setting_flags)
  out = flags.out.expanduser().absolute()
  if out.exists() and not out.is_dir():
    raise ValueError(f"--out={flags.out} is a file; expected a folder, new or not.")
  fields = variants.DEFAULT
  if flags.variants is not None:
    fields = variants.read(pathlib.Path(console.find(flags.variants, "variants")))
  rivals = variants.RIVALS if flags.rivals else ()
  fields = fields | {name: {} for name in rivals}
  names = tuple(fields)
  asked = names if flags.only is None else variants.choose(names, flags.only)
  configs = {name: variants.changed(config, name, fields[name]) for name in names}
  owner = {
    name: next(first for first in names if configs[first] == configs[name])
    for name in names
  } | {name: name for name in rivals}
  sweep = Sweep(
    out=out,
    command=("python", "-m", "nps_jax.sweep", *arguments),
    config=config,
    drawn=config.data.synthetic and not config.data.root,
    categories=_categories(config, flags.categories),
    seeds=flags.seeds,
    variants=fields,
    owner=owner,
    asked=asked,
    runs=(),
    job=next((job for job in JOBS[1:] if getattr(flags, job)), JOBS[0]),
  )
  runs, groups = [], _groups(sweep.categories, flags.unified)
  for variant in dict.fromkeys(owner.values()):
    for group, categories in groups.items():
      runs += _runs(
        sweep, variant, group, categories, configs[variant], file, overrides
      )
  if flags.part is not None:
    # All variants of a category and a seed: of some, one takes the other's training.
    units = [(seed, names) for seed in sweep.seeds for names in groups.values()]
    at, count = flags.part
    own = units[at::count]
    runs = [run for run in runs if (run.seed, run.categories) in own]
  return sweep._replace(runs=tuple(runs))


def _groups(categories: tuple[str, ...], unified: bool) -> dict[str, tuple[str, ...]]:
  """The categories of one training, by the name of their folder."""
  if unified:
    return {UNIFIED: categories}
  return {category: (category,) for category in categories}


def _runs(
  sweep: Sweep,
  variant: str,
  group: str,
  categories: tuple[str, ...],
  config: ml_collections.ConfigDict,
  file: str,
  overrides: Mapping[str, Any],
) -> Iterator[Run]:
  """A variant's runs on some categories, one for each seed.

  Args:
    group: the name of the categories' folder.
    config: the variant's settings.
    file: the config's file.
    overrides: what the sweep's flags set in it.
  """
  values = settings.leaves(config)
  varied = {field: values[field] for field in sweep.variants[variant]}
  for seed in sweep.seeds:
    own = {"data.category": ",".join(categories), "seed": seed}
    if sweep.drawn:
      own["data.root"] = str(sweep.out / variants.DATA / f"seed{seed}")
    name = f"{variant}/{group}/seed{seed}"
    yield Run(
      name=name,
      variant=variant,
      categories=categories,
      seed=seed,
      folder=sweep.out / name,
      config=settings.assigned(config, own),
      command=_command(variant, file, {**overrides, **varied, **own}),
    )


def trained_alike(first: Run, second: Run) -> bool:
  """Whether both are trainings, and differ only in what is read after them."""
  trained = [
    {
      field: value
      for field, value in settings.leaves(run.config).items()
      if not settings.is_scored(field)
    }
    for run in (first, second)
    if run.variant not in variants.RIVALS
  ]
  return len(trained) == 2 and trained[0] == trained[1]


def _command(variant: str, file: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
  """The module that does it, and its flags."""
  words = ["nps_jax.train"]
  if variant in variants.RIVALS:
    words = ["nps_jax.study.rivals", f"--rival={variant}"]
  # One flag a field: of tuples, a second one would add to the first.
  texts = [variants.flag(field, value) for field, value in fields.items()]
  return (*words, f"--config={file}", *texts)


def _categories(config: ml_collections.ConfigDict, text: str) -> tuple[str, ...]:
  """The categories asked for: of the data's or, where they are drawn, of these."""
  if config.data.root:
    return folder.resolve(pathlib.Path(config.data.root).expanduser(), text)
  if not config.data.synthetic:
    raise ValueError(
      "config.data.root is empty. Give --config.data.root=ROOT, the folder that holds "
      "the categories."
    )
  drawn = synthetic.CATEGORIES
  if text == "all":
    return drawn
  names = dict.fromkeys(name.strip() for name in text.split(",") if name.strip())
  if not names or not set(names) <= set(drawn):
    raise ValueError(f"--categories is {text!r}; products drawn: {', '.join(drawn)}.")
  return tuple(names)
