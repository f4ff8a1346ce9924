"""What a run keeps on disk to go on or to be used: settings, frozen weights, steps."""

from collections.abc import Iterator, Mapping
import contextlib
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
from nps_jax import integrity
from nps_jax import telemetry

Tree = Any
CONFIG, STEPS = "config.json", "checkpoints"
FROZEN = "frozen.safetensors"
ANEW = "Bring an intact copy of both, or train anew in another --workdir."
AGAIN = "Start the same training command again: it writes both anew, and does no more."
ARRAYS = "sums"  # an item of each step: the sums of its arrays

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
    "images": description.images,
  }
  text = json.dumps(content, indent=2) + "\n"
  integrity.write(workdir / CONFIG, text.encode())


def read_description(workdir: pathlib.Path) -> Description:
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
    FileNotFoundError: `trained` is not a run, or has no steps.
    ValueError: it differs in more than what is scored; lists the differences.
  """
  differing = _differences(read_description(trained), about, trained, scored=False)
  if differing:
    raise ValueError(
      f"{trained} was trained with other settings:\n  "
      + "\n  ".join(differing)
      + f"\nOnly {', '.join(settings.SCORED)} may differ."
    )
  if not (trained / STEPS).exists():
    raise FileNotFoundError(f"{trained} has no {STEPS}: its training has not come far.")


def adopt(trained: pathlib.Path, workdir: pathlib.Path) -> None:
  """Copies another run's steps and log to the workdir, unless it has steps."""
  if distributed.is_lead() and not (workdir / STEPS).exists():
    aside = workdir / f"{STEPS}.partial"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(trained / STEPS, aside)
    shutil.copy(trained / telemetry.FILE, workdir)
    aside.rename(workdir / STEPS)
  distributed.barrier("adopted checkpoints")


def write_frozen(workdir: pathlib.Path, tree: Tree) -> None:
  """Stores what no training changes (encoder, contexts) once, with a checksum.

  A damaged file is replaced.
  """
  path = workdir / FROZEN
  if not distributed.is_lead() or integrity.intact(path):
    return
  if path.exists():
    logging.warning("%s is damaged: it is written anew.", path)
  flat = traverse_util.flatten_dict(tree, sep="/")
  flat = {name: np.array(leaf, order="C") for name, leaf in flat.items()}
  integrity.write(path, safetensors.numpy.save(flat))


def read_frozen(workdir: pathlib.Path) -> Tree:
  """The tree that write_frozen stored.

  Raises:
    FileNotFoundError: the run has no such file.
    ValueError: the file is not the one that was written.
  """
  path = workdir / FROZEN
  integrity.read(path, AGAIN)
  return traverse_util.unflatten_dict(safetensors.numpy.load_file(path), sep="/")


class Checkpoints:
  """The numbered steps of one run, saved while training goes on.

  A step is there whole, with the sums of its arrays, or not at all; those of its files
  follow as soon as it is known to have ended.
  """

  def __init__(self, workdir: pathlib.Path, keep: int):
    self._folder = (workdir / STEPS).absolute()
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
    self._manager = ocp.CheckpointManager(self._folder, options=options)
    self._damaged: dict[int, str] = {}
    self._saving: int | None = None

  def save(self, step: int, items: Mapping[str, Tree]) -> None:
    """Starts to save the items as `step`; waits for the save before it.

    A damaged folder of that step is moved out of the way, to damaged-<step>.

    Raises:
      OSError: this step or the one before cannot be saved.
    """
    if step in self._damaged:
      del self._damaged[step]
      if distributed.is_lead():
        aside = self._folder.parent / f"damaged-{step}"
        shutil.rmtree(aside, ignore_errors=True)
        (self._folder / str(step)).rename(aside)
      distributed.barrier(f"damaged-{step}")
      self._manager.reload()
    # As NumPy: of replicated device arrays orbax would compile a slicing of each shape.
    held = {name: jax.device_get(tree) for name, tree in items.items()}
    args = {name: ocp.args.StandardSave(tree) for name, tree in held.items()}
    args[ARRAYS] = ocp.args.JsonSave(_sums(held))
    self._settle()
    self._saving = step
    with self._clear_errors():
      self._manager.save(step, args=ocp.args.Composite(**args), force=True)

  def restore(self, like: Mapping[str, Tree]) -> tuple[int, dict[str, Tree]] | None:
    """The newest intact step, with the items named; None if there is none.

    Args:
      like: arrays or jax.ShapeDtypeStruct (with sharding) in the shape of each item.

    Raises:
      ValueError: there are steps, none of which is intact.
    """
    for step in sorted(self._manager.all_steps(), reverse=True):
      found, problem = None, integrity.breach(self._folder / str(step))
      if distributed.all_hosts(problem is None):
        found, problem = self._read(step, like)
      if distributed.all_hosts(problem is None):
        return step, found
      self._damaged[step] = problem or "another host cannot read it"
      logging.warning(
        "Checkpoint %d is damaged, passed over: %s.", step, self._damaged[step]
      )
    if self._damaged:
      raise ValueError(
        f"None of the checkpoints {sorted(self._damaged)} in {self._folder} is intact: "
        + "; ".join(f"{step}: {why}" for step, why in self._damaged.items())
        + ". Bring an intact copy, or start anew in another --workdir."
      )
    return None

  def _read(
    self, step: int, like: Mapping[str, Tree]
  ) -> tuple[dict[str, Tree] | None, str | None]:
    """The items of a step and what is wrong with them, if anything is."""
    args = {
      name: ocp.args.StandardRestore(jax.tree.map(_abstract, tree))
      for name, tree in like.items()
    }
    args[ARRAYS] = ocp.args.JsonRestore()
    try:
      found = self._manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as error:  # orbax raises many kinds
      return None, f"it cannot be read ({error})"
    items = {name: found[name] for name in like}
    for name, each in _sums(jax.device_get(items)).items():
      if found[ARRAYS].get(name) != each:
        return None, f"the SHA-256 of the array {name} is not that which was saved"
    return items, None

  def close(self) -> None:
    """Waits for the last save to end.

    Raises:
      OSError: the last step cannot be saved.
    """
    self._settle()
    self._manager.close()

  def _settle(self) -> None:
    """Waits for the save under way, then adds the sums of its files."""
    with self._clear_errors():
      self._manager.wait_until_finished()
      if self._saving is not None and distributed.is_lead():
        integrity.seal(self._folder / str(self._saving))
    self._saving = None

  @contextlib.contextmanager
  def _clear_errors(self) -> Iterator[None]:
    """What goes wrong with a save, now or behind the scenes, becomes one error."""
    try:
      yield
    except Exception as error:  # orbax raises many kinds
      step, self._saving = self._saving, None
      raise OSError(
        f"Checkpoint {step} cannot be saved in {self._folder}: {error}\nMake room or "
        "mend the disk, then start the same command again: it goes on from the newest "
        "checkpoint that is there."
      ) from error


def _sums(items: Mapping[str, Tree]) -> dict[str, str]:
  """The sum of every array, by its path."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(dict(items))
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): integrity.array_sum(
      np.asarray(leaf)
    )
    for path, leaf in leaves
  }


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
  sharding = getattr(leaf, "sharding", None)
  return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


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
