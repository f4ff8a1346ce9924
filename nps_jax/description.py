"""What config.json says of a run: its settings, and on which data and encoder it is."""

import json
import pathlib
from typing import Any, NamedTuple

from flax import traverse_util
import ml_collections

from nps_jax import config as settings
from nps_jax import distributed
from nps_jax import integrity

CONFIG = "config.json"
ANEW = "Bring an intact copy of both, or train anew in another --workdir."

# Fields that may differ when a run goes on: they change neither model nor data order.
FREE = (
  "checkpoint.every",
  "checkpoint.keep",
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
  images: str = ""  # the fingerprint of the normal images


def write(workdir: pathlib.Path, about: Description) -> None:
  """Writes config.json, or checks that the run found there is this one.

  Raises:
    ValueError: the workdir holds a run with other settings; lists the differences.
  """
  if (workdir / CONFIG).exists():
    found = read(workdir)
    differing = _differences(found, about)
    if differing:
      raise ValueError(
        f"{workdir} holds a run with other settings:\n  "
        + "\n  ".join(differing)
        + "\nUse another --workdir, or give the settings of that run to go on with it."
      )
    return
  if not distributed.is_lead():
    return
  content = {
    "config": about.config.to_dict(),
    "categories": list(about.categories),
    "deepest": about.deepest,
    "encoder": about.encoder,
    "images": about.images,
  }
  text = json.dumps(content, indent=2) + "\n"
  integrity.write(workdir / CONFIG, text.encode())


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
  held, known = (
    set(traverse_util.flatten_dict(each, sep="."))
    for each in (content["config"], config.to_dict())
  )
  if held != known:
    raise ValueError(
      f"{path} was written by another version of this package: it lacks the settings "
      f"{sorted(known - held)} and has {sorted(held - known)} besides. Use that "
      "version, or train anew in another --workdir."
    )
  config.update(_tuples(content["config"]))
  return Description(
    ml_collections.FrozenConfigDict(config),
    tuple(content["categories"]),
    content["deepest"],
    content["encoder"],
    content["images"],
  )


def check_trained(trained: pathlib.Path, about: Description) -> None:
  """Checks that another run was trained as the run of `about` would be.

  Raises:
    FileNotFoundError: `trained` is not a run.
    ValueError: it differs in more than what is scored; lists the differences.
  """
  differing = _differences(read(trained), about, trained, scored=False)
  if differing:
    raise ValueError(
      f"{trained} was trained with other settings:\n  "
      + "\n  ".join(differing)
      + f"\nOnly these may differ: {', '.join(settings.SCORED + FREE)}."
    )


def _differences(
  found: Description,
  wanted: Description,
  place: pathlib.Path | str = "the workdir",
  *,
  scored: bool = True,
) -> list[str]:
  """One line for each setting that bars going on with the run in a place.

  Args:
    scored: whether those that are read after the training count.
  """
  pairs = {
    "categories": (found.categories, wanted.categories),
    "encoder": (found.encoder, wanted.encoder),
    "normal images, as SHA-256": (found.images, wanted.images),
  }
  flat = [
    traverse_util.flatten_dict(each.config.to_dict(), sep=".")
    for each in (found, wanted)
  ]
  pairs |= {
    f"config.{name}": (old, flat[1][name])
    for name, old in flat[0].items()
    if scored or not settings.is_scored(name)
  }
  return [
    f"{name}: {old!r} in {place}, {new!r} asked for"
    for name, (old, new) in pairs.items()
    if old != new and name.removeprefix("config.") not in FREE
  ]


def _tuples(value: Any) -> Any:
  """JSON's lists as the tuples that configs hold."""
  if isinstance(value, dict):
    return {name: _tuples(each) for name, each in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
