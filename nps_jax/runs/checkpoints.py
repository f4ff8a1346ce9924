"""What a run keeps on disk to go on: its steps."""

from collections.abc import Iterator, Mapping
import contextlib
import pathlib
import shutil
from typing import Any

from absl import logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from nps_jax import distributed
from nps_jax.runs import arrays
from nps_jax.runs import integrity
from nps_jax.runs import telemetry

Tree = Any
STEPS = "checkpoints"
ARRAYS = "sums"  # an item of each step: the sums of its arrays


def adopt(trained: pathlib.Path, workdir: pathlib.Path) -> None:
  """Copies another run's frozen weights, log and steps, unless there are steps."""
  if distributed.is_lead() and not _has_steps(workdir):
    logging.info("Taking the training of %s to %s.", trained, workdir)
    frozen = trained / arrays.FROZEN
    for path in (
      frozen.with_suffix(integrity.SUFFIX),
      frozen,
      trained / telemetry.FILE,
    ):
      shutil.copy(path, workdir)
    aside = workdir / f"{STEPS}.partial"
    for folder in (aside, workdir / STEPS):
      shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(trained / STEPS, aside)
    aside.rename(workdir / STEPS)
  distributed.barrier("adopted checkpoints")


def _has_steps(workdir: pathlib.Path) -> bool:
  """Whether a step was saved; the folder of the steps is there from the start."""
  return any(path.name.isdigit() for path in (workdir / STEPS).glob("*"))


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
    arrays = {name: jax.device_get(tree) for name, tree in items.items()}
    args = {name: ocp.args.StandardSave(tree) for name, tree in arrays.items()}
    args[ARRAYS] = ocp.args.JsonSave(_sums(arrays))
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
      items, problem = None, integrity.breach(self._folder / str(step))
      if distributed.all_hosts(problem is None):
        items, problem = self._read(step, like)
      if distributed.all_hosts(problem is None):
        return step, items
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
      restored = self._manager.restore(step, args=ocp.args.Composite(**args))
    except Exception as error:  # orbax raises many kinds
      return None, f"it cannot be read ({error})"
    items = {name: restored[name] for name in like}
    for name, array_sum in _sums(jax.device_get(items)).items():
      if restored[ARRAYS].get(name) != array_sum:
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
