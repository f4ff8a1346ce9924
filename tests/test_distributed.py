"""Eight fake devices on one axis: which device holds which rows, and back again."""

import jax
from jax.sharding import AxisType, PartitionSpec
import numpy as np
import pytest

from nps_jax import distributed
from nps_jax.data import records


def batch(rows):
  rng = np.random.default_rng(rows)
  return records.Batch(
    rng.integers(0, 256, (rows, 4, 4, 3), np.uint8),
    rng.integers(0, 3, rows, np.int32),
    rng.uniform(size=rows).astype(np.float32),
    np.arange(rows, dtype=np.int32),
  )


def assert_equal(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert isinstance(one, np.ndarray)
    assert one.dtype == other.dtype
    np.testing.assert_array_equal(one, other)


def test_the_mesh_has_all_devices_on_one_axis():
  mesh = distributed.mesh(16)
  assert dict(mesh.shape) == {"data": 8}
  assert mesh.axis_types == (AxisType.Auto,)
  assert set(mesh.devices.flat) == set(jax.devices())


@pytest.mark.parametrize("size", [1, 7, 12, 17])
def test_a_batch_that_does_not_divide_is_refused(size):
  with pytest.raises(
    ValueError,
    match=rf"config\.train\.batch_size is {size}, which does not divide over 8 "
    r"devices; use a multiple of 8\.",
  ):
    distributed.mesh(size)


def test_rounding_up_gives_the_next_multiple_of_eight():
  found = {rows: distributed.round_up(rows) for rows in (0, 1, 7, 8, 9, 16, 17)}
  assert found == {0: 0, 1: 8, 7: 8, 8: 8, 9: 16, 16: 16, 17: 24}
  for size in found.values():
    distributed.mesh(size)


def test_each_device_holds_its_own_rows_in_order():
  mesh, rows = distributed.mesh(16), batch(16)
  put = distributed.put_rows(mesh, rows)
  assert isinstance(put, records.Batch)
  for found, wanted in zip(put, rows, strict=True):
    assert found.sharding.spec == PartitionSpec("data")
    assert found.sharding == distributed.by_row(mesh)
    shards = {each.device: np.asarray(each.data) for each in found.addressable_shards}
    for at, device in enumerate(mesh.devices.flat):
      np.testing.assert_array_equal(shards[device], wanted[2 * at : 2 * at + 2])


def test_each_device_holds_a_whole_copy():
  mesh = distributed.mesh(8)
  tree = {
    "a": {"b": np.arange(6, dtype=np.float32).reshape(2, 3)},
    "step": np.int32(7),
    "on_device": jax.numpy.arange(5),
  }
  put = distributed.put_replicated(mesh, tree)
  assert_equal(distributed.gather(put), jax.tree.map(np.asarray, tree))
  for found, wanted in zip(jax.tree.leaves(put), jax.tree.leaves(tree), strict=True):
    assert found.sharding.spec == PartitionSpec()
    assert found.sharding == distributed.replicated(mesh)
    assert found.sharding.is_fully_replicated
    assert len(found.addressable_shards) == 8
    for shard in found.addressable_shards:
      np.testing.assert_array_equal(shard.data, wanted)


def test_gathered_rows_are_those_put():
  mesh, rows = distributed.mesh(24), batch(24)
  assert_equal(distributed.gather(distributed.put_rows(mesh, rows)), rows)


def test_a_sum_over_sharded_rows_is_that_of_the_host():
  mesh, rows = distributed.mesh(16), batch(16)
  total = jax.jit(
    lambda each: (each.valid[:, None] * each.image.reshape(16, -1)).sum(),
    in_shardings=distributed.by_row(mesh),
    out_shardings=distributed.replicated(mesh),
  )(distributed.put_rows(mesh, rows))
  flat = np.float64(rows.image).reshape(16, -1)
  wanted = (np.float64(rows.valid)[:, None] * flat).sum()
  assert float(distributed.gather(total)) == pytest.approx(wanted, rel=1e-5)


def test_one_process_leads_and_waits_for_nobody(monkeypatch):
  assert distributed.is_lead()
  assert (distributed.host_index(), distributed.host_count()) == (0, 1)
  waited = []
  monkeypatch.setattr(distributed.multihost_utils, "sync_global_devices", waited.append)
  distributed.barrier("alone")
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  distributed.barrier("together")
  assert waited == ["together"]


def test_only_process_zero_leads(monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  assert not distributed.is_lead()
  assert distributed.host_index() == 1


def test_several_hosts_gather_one_anothers_rows(monkeypatch):
  def allgather(tree, *, tiled):
    assert tiled  # else a new axis would number the hosts
    return jax.tree.map(lambda leaf: np.concatenate([leaf, leaf + 10]), tree)

  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(distributed.multihost_utils, "process_allgather", allgather)
  found = distributed.gather({"index": np.arange(2)})
  assert found["index"].tolist() == [0, 1, 10, 11]


def test_joining_leaves_the_addresses_to_jax_and_tells_the_numbers(monkeypatch):
  calls = []
  monkeypatch.setattr(
    jax.distributed, "initialize", lambda **known: calls.append(known)
  )
  for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
    monkeypatch.delenv(name, raising=False)
  distributed.initialise()
  monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
  monkeypatch.setenv("JAX_PROCESS_ID", "0")
  distributed.initialise()
  assert calls == [
    {"num_processes": None, "process_id": None},
    {"num_processes": 4, "process_id": 0},
  ]
  monkeypatch.setenv("JAX_PROCESS_ID", "first")
  with pytest.raises(ValueError, match="JAX_PROCESS_ID is 'first'; expected a number"):
    distributed.initialise()


def test_texts_of_several_hosts_come_together(monkeypatch):
  """Hosts have lists of other lengths; the shorter text is padded on the way."""
  ours, theirs = ["a: ü \udcff", "b"], ["c is a longer line than all of ours"]
  sent = []

  def allgather(array):
    sent.append(array)
    content = np.frombuffer(theirs[0].encode(), np.uint8)
    if len(sent) == 1:
      return np.stack([array, [len(content)]])
    return np.stack([array, content])

  assert distributed.gather_texts(ours) == ours
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  monkeypatch.setattr(distributed.multihost_utils, "process_allgather", allgather)
  assert distributed.gather_texts(ours) == ours + theirs
  sent.clear()
  assert distributed.gather_texts([]) == theirs


def test_what_holds_on_all_hosts_holds_on_each(monkeypatch):
  assert distributed.all_hosts(True) and not distributed.all_hosts(False)
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  for other in (True, False):
    monkeypatch.setattr(
      distributed.multihost_utils,
      "process_allgather",
      lambda array, other=other: np.stack([array, [other]]),
    )
    assert distributed.all_hosts(True) == other
    assert not distributed.all_hosts(False)
