"""Devices and hosts: the one file that knows how many of either there are."""

from collections.abc import Sequence
import os
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Shaped
import numpy as np

Tree = Any
AXIS = "data"


def initialise() -> None:
  """Joins this process with the others that its launcher has started.

  SLURM, Open MPI and TPU pods tell JAX all that it needs. Elsewhere the environment
  does: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID.

  Raises:
    ValueError: one of the two numbers is none.
  """
  jax.distributed.initialize(
    num_processes=_number("JAX_NUM_PROCESSES"), process_id=_number("JAX_PROCESS_ID")
  )


def is_joined() -> bool:
  """Whether `initialise` has been called."""
  return jax.distributed.is_initialized()


def _number(name: str) -> int | None:
  """An environment variable as a number; None where it is not set."""
  text = os.environ.get(name, "")
  if text and not text.isdecimal():
    raise ValueError(f"{name} is {text!r}; expected a number.")
  return int(text) if text else None


def is_lead() -> bool:
  """True on the one host that writes reports."""
  return jax.process_index() == 0


def host_index() -> int:
  return jax.process_index()


def host_count() -> int:
  return jax.process_count()


def mesh(batch_size: int) -> Mesh:
  """All devices of all hosts on one axis.

  Raises:
    ValueError: the global batch does not divide evenly over the devices.
  """
  count = jax.device_count()
  if batch_size % count:
    raise ValueError(
      f"config.train.batch_size is {batch_size}, which does not divide over {count} "
      f"devices; use a multiple of {count}."
    )
  return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,))


def round_up(rows: int) -> int:
  """The next multiple of the number of devices."""
  return -(-rows // jax.device_count()) * jax.device_count()


def replicated(devices: Mesh) -> NamedSharding:
  """Every device has the whole array."""
  return NamedSharding(devices, PartitionSpec())


def by_row(devices: Mesh) -> NamedSharding:
  """Every device has some rows of the first axis."""
  return NamedSharding(devices, PartitionSpec(AXIS))


def on_every_device(tree: Tree) -> Tree:
  """Within a compiled function: the same values, on every device all of them.

  One exchange, where the compiler would else make one of every step in between. It
  goes by the mesh of `jax.set_mesh`, and without one it does nothing.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return jax.lax.with_sharding_constraint(tree, PartitionSpec())


def put_rows(devices: Mesh, rows: Tree) -> Tree:
  """This host's rows as global arrays, sharded along their first axis."""
  return jax.tree.map(
    lambda leaf: jax.make_array_from_process_local_data(by_row(devices), leaf), rows
  )


def put_replicated(devices: Mesh, tree: Tree) -> Tree:
  """The same values on every device."""

  def put(leaf):
    return jax.make_array_from_callback(
      np.shape(leaf), replicated(devices), lambda index: np.asarray(leaf)[index]
    )

  return jax.tree.map(put, tree)


def gather(tree: Tree) -> Tree:
  """NumPy copies of global arrays, rows of all hosts together, on every host."""
  if host_count() == 1:
    return jax.tree.map(np.asarray, jax.device_get(tree))
  return multihost_utils.process_allgather(tree, tiled=True)


def all_hosts(holds: bool) -> bool:
  """Whether it holds on every host."""
  return bool(np.all(gather_hosts(np.array([holds]))))


def gather_texts(lines: Sequence[str]) -> list[str]:
  """The lines of all hosts, host by host, on every host."""
  if host_count() == 1:
    return list(lines)
  content = np.frombuffer("\0".join(lines).encode("utf-8", "surrogateescape"), np.uint8)
  lengths = gather_hosts(np.array([len(content)]))
  padded = np.zeros(int(lengths.max()), np.uint8)
  padded[: len(content)] = content
  rows = gather_hosts(padded)
  texts = [
    bytes(row[:length]).decode("utf-8", "surrogateescape")
    for row, length in zip(rows, lengths[:, 0].tolist(), strict=True)
  ]
  return [line for text in texts if text for line in text.split("\0")]


def gather_hosts(array: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "hosts ..."]:
  """Every host's array, of one shape, on every host."""
  if host_count() == 1:
    return array[None]
  return multihost_utils.process_allgather(array)


def barrier(name: str) -> None:
  """Waits until every host has come here."""
  if host_count() > 1:
    multihost_utils.sync_global_devices(name)
