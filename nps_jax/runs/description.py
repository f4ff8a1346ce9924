"""What config.json says of a run: its settings, and on which data and encoder it is."""

from collections.abc import Callable, Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

import ml_collections

from nps_jax import config as settings
from nps_jax import distributed
from nps_jax.runs import integrity

CONFIG = "config.json"
STEPS = "config.train.steps"
LISTED = 20  # names of images that a message shows at most
RETRAIN = (
  "The run's modules, memory, codes and thresholds are all from its own images, so "
  "none of them can take in others: train anew on all images in another --workdir, or "
  "bring these back"
)
ANEW = "Bring an intact copy of both, or train anew in another --workdir."

# Fields that may differ when a run goes on: they change neither model nor data order.
FREE = (
  "checkpoint.every",
  "checkpoint.keep",
  "data.region",
  "data.root",
  "data.source",
  "data.threads",
  "encoder.weights",
  "train.feature_cache",
  "train.log_every",
)


class Description(NamedTuple):
  """What config.json says of a run."""

  config: ml_collections.FrozenConfigDict
  categories: tuple[str, ...]
  deepest: int
  encoder: dict[str, Any]  # which weights the frozen encoder holds
  images: dict[str, str] | None = None  # SHA-256 of each normal image's file, by id
  extended: tuple[int, ...] = ()  # the steps that the run was to have before


def write(workdir: pathlib.Path, about: Description, *, longer: bool = False) -> None:
  """Writes config.json, or checks that the run that is there is this one.

  Args:
    longer: whether more steps may be asked for than are there; they stay as they are.

  Raises:
    ValueError: the workdir holds a run with other settings; lists the differences.
  """
  claim(
    workdir / CONFIG,
    _content(about),
    lambda: _differences(read(workdir), about, longer=longer),
  )


def extend(workdir: pathlib.Path, about: Description) -> None:
  """Replaces config.json by one of more steps, which says how many there were.

  An interruption leaves one or the other; one that has these steps stays.

  Raises:
    ValueError: the workdir holds a run with other settings; lists the differences.
  """
  write(workdir, about, longer=True)
  stored = read(workdir)
  if stored.config.train.steps < about.config.train.steps:
    extended = (*stored.extended, stored.config.train.steps)
    _put(workdir / CONFIG, _content(about._replace(extended=extended)))


def _content(about: Description) -> dict[str, Any]:
  """What config.json is to say, as JSON."""
  return {
    "config": about.config.to_dict(),
    "categories": list(about.categories),
    "deepest": about.deepest,
    "encoder": about.encoder,
    "images": about.images,
    "extended": list(about.extended),
  }


def _put(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  integrity.write(path, f"{json.dumps(content, indent=2)}\n".encode())


def claim(
  path: pathlib.Path,
  content: Mapping[str, Any],
  differences: Callable[[], Sequence[str]],
) -> None:
  """Makes the file's folder that of a run: writes what it is, or checks what is there.

  Args:
    content: what the file is to say, as JSON; only the lead host writes it.
    differences: a line for each setting in which the file that is there differs.

  Raises:
    ValueError: the folder holds a run with other settings; lists the differences.
  """
  if not path.exists():
    if distributed.is_lead():
      _put(path, content)
    return
  lines = differences()
  if lines:
    raise ValueError(
      "\n  ".join([f"{path.parent} holds a run with other settings:", *lines])
      + "\nUse another --workdir, or give the settings of that run to go on with it."
    )


def compare(
  stored: Mapping[str, Any], wanted: Mapping[str, Any], place: str = "there"
) -> list[str]:
  """A line for each setting, by its name, that differs from the one asked for."""
  return [
    f"{name}: {stored.get(name)!r} {place}, {value!r} asked for"
    for name, value in wanted.items()
    if stored.get(name) != value
  ]


def read(workdir: pathlib.Path) -> Description:
  """The settings of a run.

  Raises:
    FileNotFoundError: the folder is not a run.
    ValueError: its settings are damaged, or not those that this version of the package
      knows.
  """
  path = workdir / CONFIG
  if not path.exists():
    raise FileNotFoundError(
      f"{workdir} is not a run: it has no {CONFIG}. Give the --workdir of a training."
    )
  content = json.loads(integrity.read(path, ANEW))
  config = settings.defaults()
  stored = set(settings.leaves(ml_collections.ConfigDict(content["config"])))
  current = set(settings.leaves(config))
  if stored != current:
    raise ValueError(
      f"{path} was written by another version of this package: it lacks the settings "
      f"{sorted(current - stored)} and has {sorted(stored - current)} besides. Use "
      "that version, or train anew in another --workdir."
    )
  config.update(_tuples(content["config"]))
  return Description(
    config=ml_collections.FrozenConfigDict(config),
    categories=tuple(content["categories"]),
    deepest=content["deepest"],
    encoder=content["encoder"],
    images=content["images"],
    extended=tuple(content.get("extended", ())),  # which earlier runs do not say
  )


def check_trained(trained: pathlib.Path, about: Description) -> None:
  """Checks that another run was trained as the run of `about` would be.

  Raises:
    FileNotFoundError: `trained` is not a run.
    ValueError: it differs in more than what is scored; lists the differences.
  """
  differing = _differences(read(trained), about, f"in {trained}", scored=False)
  if differing:
    raise ValueError(
      f"{trained} was trained with other settings:\n  "
      + "\n  ".join(differing)
      + f"\nOnly these may differ: {', '.join(settings.SCORED + FREE)}."
    )


def _differences(
  stored: Description,
  wanted: Description,
  place: str = "in the workdir",
  *,
  scored: bool = True,
  longer: bool = False,
) -> list[str]:
  """One line for each setting that bars going on with the run in a place.

  Args:
    scored: whether those that are read after the training count.
    longer: whether more steps do not.
  """

  def compared(about: Description) -> dict[str, Any]:
    fields = {
      f"config.{name}": value
      for name, value in settings.leaves(about.config).items()
      if name not in FREE and (scored or not settings.is_scored(name))
    }
    inputs = {"categories": about.categories, "encoder": about.encoder}
    return inputs | fields

  there, asked = compared(stored), compared(wanted)
  if longer and asked[STEPS] > there[STEPS]:
    there[STEPS] = asked[STEPS]
  lines = compare(there, asked, place)
  if longer and asked[STEPS] < there[STEPS]:
    hint = f"; steps can be raised, not lowered: give {there[STEPS]} or more"
    lines = [line + hint * line.startswith(f"{STEPS}:") for line in lines]
  return lines + _other_images(stored.images or {}, wanted.images or {}, place)


def _other_images(
  stored: Mapping[str, str], wanted: Mapping[str, str], place: str
) -> list[str]:
  """A line on the normal images that are not the same, if there are any.

  Where some are held out by chance, new ones make others change their split.
  """
  moved = [
    name
    for name in stored
    if name not in wanted and wanted.get(_other_split(name)) == stored[name]
  ]
  settled = {*moved, *map(_other_split, moved)}
  sets = {
    "of other content": [n for n in wanted if n in stored and stored[n] != wanted[n]],
    f"only {place}": [n for n in stored if n not in wanted and n not in settled],
    "new": [n for n in wanted if n not in stored and n not in settled],
    "now on the other side of training and held out": moved,
  }
  parts = [
    f"{len(names)} {what} ({', '.join(names[:LISTED])}"
    + (", ...)" if len(names) > LISTED else ")")
    for what, names in sets.items()
    if names
  ]
  return [f"normal images: {'; '.join(parts)}. {RETRAIN}"] if parts else []


def _other_split(name: str) -> str:
  """The id that the image has if it is held out, and trained on if it is not."""
  category, split, *inner = name.split("/")
  other = "train" if split == "validation" else "validation"
  return "/".join([category, other, *inner])


def _tuples(value: Any) -> Any:
  """JSON's lists as the tuples that configs hold."""
  if isinstance(value, dict):
    return {name: _tuples(item) for name, item in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
