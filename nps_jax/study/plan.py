"""What a sweep is asked to run: its flags, checked before anything is written."""

import argparse
from collections.abc import Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

from absl import flags as absl_flags
import ml_collections
from ml_collections import config_flags

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
  return parser.parse_known_args(arguments)


def _seeds(text: str) -> tuple[int, ...]:
  parts = [each.strip() for each in text.split(",")]
  if not all(each.isascii() and each.isdigit() for each in parts):
    raise argparse.ArgumentTypeError(
      f"{text!r}: expected whole numbers from 0 on, commas between, such as 0,1,2"
    )
  seeds = tuple(int(each) for each in parts)
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
    settings.validate(config)
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
  flags, rest = parse(arguments)
  file, config, given = load(rest)
  out = flags.out.expanduser().absolute()
  if out.exists() and not out.is_dir():
    raise ValueError(f"--out={flags.out} is a file; expected a folder, new or not.")
  known = variants.DEFAULT
  if flags.variants is not None:
    known = variants.read(pathlib.Path(console.find(flags.variants, "variants")))
  rivals = variants.RIVALS if flags.rivals else ()
  known = known | {name: {} for name in rivals}
  every = tuple(known)
  asked = every if flags.only is None else variants.choose(every, flags.only)
  configs = {name: variants.changed(config, name, known[name]) for name in known}
  owner = {
    name: next(other for other in known if configs[other] == configs[name])
    for name in known
  } | {name: name for name in rivals}
  drawn = config.data.synthetic and not config.data.root
  categories = _categories(config, flags.categories)
  runs = []
  for name in dict.fromkeys(owner.values()):
    changed = settings.leaves(configs[name])
    fields = given | {field: changed[field] for field in known[name]}
    for group in [categories] if flags.unified else [(each,) for each in categories]:
      middle = UNIFIED if flags.unified else group[0]
      for seed in flags.seeds:
        own = {"data.category": ",".join(group), "seed": seed}
        if drawn:
          own["data.root"] = str(out / variants.DATA / f"seed{seed}")
        place = f"{name}/{middle}/seed{seed}"
        wanted = settings.assigned(configs[name], own)
        command = _command(name, file, fields | own)
        runs.append(Run(place, name, group, seed, out / place, wanted, command))
  return Sweep(
    *(out, ("python", "-m", "nps_jax.sweep", *arguments), config, drawn, categories),
    *(flags.seeds, known, owner, asked, tuple(runs)),
  )


def trained_alike(one: Run, other: Run) -> bool:
  """Whether both are trainings, and differ only in what is read after them."""
  trained = [
    {
      field: value
      for field, value in settings.leaves(run.config).items()
      if not settings.is_scored(field)
    }
    for run in (one, other)
    if run.variant not in variants.RIVALS
  ]
  return len(trained) == 2 and trained[0] == trained[1]


def _command(variant: str, file: str, fields: Mapping[str, Any]) -> tuple[str, ...]:
  """The module that does it, and its flags."""
  words = ["nps_jax.train"]
  if variant in variants.RIVALS:
    words = ["nps_jax.study.rivals", f"--rival={variant}"]
  # One flag a field: of tuples, a second one would add to the first.
  texts = [variants.flag(*each) for each in fields.items()]
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
  known = synthetic.CATEGORIES
  if text == "all":
    return known
  names = dict.fromkeys(each.strip() for each in text.split(",") if each.strip())
  if not names or not set(names) <= set(known):
    raise ValueError(f"--categories is {text!r}; products drawn: {', '.join(known)}.")
  return tuple(names)
