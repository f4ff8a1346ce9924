"""What a run keeps on disk to go on or to be used: settings, frozen weights, steps."""

from collections.abc import Mapping
import hashlib
import json
import pathlib
import shutil
from typing import Any, NamedTuple

from absl import logging
from flax import traverse_util
import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
import safetensors.numpy

from nps_jax import config as settings
from nps_jax import distributed
from nps_jax import files

Tree = Any
CONFIG, STEPS = "config.json", "checkpoints"
FROZEN, DIGEST = "frozen.safetensors", "frozen.sha256"

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


def describe(workdir: pathlib.Path, description: Description) -> None:
  """Writes config.json, or checks that the run found there is this one.

  Raises:
    ValueError: the workdir holds a run with other settings; lists the differences.
  """
  if (workdir / CONFIG).exists():
    found = read_description(workdir)
    differing = _differences(found, description)
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
    "config": description.config.to_dict(),
    "categories": list(description.categories),
    "deepest": description.deepest,
    "encoder": description.encoder,
  }
  files.write_text(workdir / CONFIG, json.dumps(content, indent=2) + "\n")


def read_description(workdir: pathlib.Path) -> Description:
  """The settings of a run.

  Raises:
    FileNotFoundError: the folder is not a run.
    ValueError: its settings are not those that this version of the package knows.
  """
  path = workdir / CONFIG
  if not path.exists():
    raise FileNotFoundError(
      f"{workdir} is not a run: it has no {CONFIG}. Give the --workdir of a training."
    )
  content = json.loads(path.read_text(encoding="utf-8"))
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
  )


def write_frozen(workdir: pathlib.Path, tree: Tree) -> None:
  """Stores what no training changes (encoder, contexts) once, with a checksum."""
  path = workdir / FROZEN
  if not path.exists() and distributed.is_lead():
    flat = traverse_util.flatten_dict(tree, sep="/")
    flat = {name: np.array(leaf, order="C") for name, leaf in flat.items()}
    content = safetensors.numpy.save(flat)
    files.write_text(workdir / DIGEST, hashlib.sha256(content).hexdigest() + "\n")
    files.write_bytes(path, content)


def read_frozen(workdir: pathlib.Path) -> Tree:
  """The tree that write_frozen stored.

  Raises:
    FileNotFoundError: the run has no such file.
    ValueError: the file is not the one that was written.
  """
  path = workdir / FROZEN
  for each in (path, workdir / DIGEST):
    if not each.exists():
      raise FileNotFoundError(f"{each} is missing; bring it, or train anew elsewhere.")
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  if digest != (workdir / DIGEST).read_text().strip():
    raise ValueError(
      f"{path} is damaged: its SHA-256 is not that in {DIGEST}. Bring an intact copy, "
      "or train anew in another --workdir."
    )
  return traverse_util.unflatten_dict(safetensors.numpy.load_file(path), sep="/")


class Checkpoints:
  """The numbered steps of one run, saved while training goes on."""

  def __init__(self, workdir: pathlib.Path, keep: int):
    self._folder = (workdir / STEPS).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    self._damaged: set[int] = set()

  def save(self, step: int, items: Mapping[str, Tree]) -> None:
    """Starts to save the items as `step`; waits for the save before it.

    A damaged folder of that step is moved out of the way, to damaged-<step>.
    """
    if step in self._damaged:
      self._damaged.remove(step)
      if distributed.is_lead():
        aside = self._folder.parent / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        (self._folder / str(step)).rename(aside)
      distributed.barrier(f"damaged-{step}")
      self._manager.reload()
    # As NumPy: of replicated device arrays orbax would compile a slicing of each shape.
    held = {name: jax.device_get(tree) for name, tree in items.items()}
    args = {name: ocp.args.StandardSave(tree) for name, tree in held.items()}
    self._manager.save(step, args=ocp.args.Composite(**args), force=True)

  def restore(self, like: Mapping[str, Tree]) -> tuple[int, dict[str, Tree]] | None:
    """The newest step that can be read, with the items named; None if there is none.

    Args:
      like: arrays or jax.ShapeDtypeStruct (with sharding) in the shape of each item.

    Raises:
      ValueError: there are steps, none of which can be read.
    """
    args = {
      name: ocp.args.StandardRestore(jax.tree.map(_abstract, tree))
      for name, tree in like.items()
    }
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        found = self._manager.restore(step, args=ocp.args.Composite(**args))
      except (OSError, KeyError, ValueError) as error:
        logging.warning("Checkpoint %d cannot be read, passed over: %s", step, error)
        self._damaged.add(step)
        continue
      return step, {name: found[name] for name in like}
    if self._damaged:
      raise ValueError(
        f"None of the checkpoints {sorted(self._damaged)} in {self._folder} can be "
        "read: they are damaged, or another version of this package wrote them. Bring "
        "an intact copy, or start anew in another --workdir."
      )
    return None

  def close(self) -> None:
    """Waits for the last save to end."""
    self._manager.wait_until_finished()
    self._manager.close()


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(leaf, "sharding", None)
  return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


def _differences(found: Description, wanted: Description) -> list[str]:
  """One line for each setting that bars going on with the run."""
  pairs = {
    "categories": (found.categories, wanted.categories),
    "encoder": (found.encoder, wanted.encoder),
  }
  flat = [
    traverse_util.flatten_dict(each.config.to_dict(), sep=".")
    for each in (found, wanted)
  ]
  pairs |= {f"config.{name}": (flat[0][name], flat[1][name]) for name in flat[0]}
  return [
    f"{name}: {old!r} in the workdir, {new!r} asked for"
    for name, (old, new) in pairs.items()
    if old != new and name.removeprefix("config.") not in FREE
  ]


def _tuples(value: Any) -> Any:
  """JSON's lists as the tuples that configs hold."""
  if isinstance(value, dict):
    return {name: _tuples(each) for name, each in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value
