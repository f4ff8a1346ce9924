"""A run's steps, of which the newest intact one is found."""

import logging
import shutil

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
import numpy as np
import pytest

from nps_jax import distributed
from nps_jax.runs import checkpoints
from nps_jax.runs import integrity

LIKE = {"variables": {"a": jax.ShapeDtypeStruct((3,), jnp.float32)}}


def items(step):
  variables = {"a": jnp.full(3, step, jnp.float32)}
  return {"variables": variables, "opt": {"m": (jnp.arange(2), jnp.float32(0.5))}}


def saved(workdir, *steps, keep=3):
  keeper = checkpoints.Checkpoints(workdir, keep)
  for step in steps:
    keeper.save(step, items(step))
  keeper.close()


def restored(workdir, like=LIKE, keep=3):
  keeper = checkpoints.Checkpoints(workdir, keep)
  found = keeper.restore(like)
  keeper.close()
  return found


def steps(workdir):
  return sorted(each.name for each in (workdir / checkpoints.STEPS).iterdir())


def flip(path, at):
  """Changes one bit of a file; once more changes it back."""
  content = bytearray(path.read_bytes())
  content[at] ^= 1
  path.write_bytes(content)


def assert_same(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_a_new_run_has_nothing_to_restore(tmp_path):
  assert restored(tmp_path) is None


def test_the_newest_step_comes_back_and_so_do_only_the_items_asked_for(tmp_path):
  saved(tmp_path, 4, 10, 9)
  like = jax.tree.map(jnp.zeros_like, items(0))
  step, found = restored(tmp_path, like)
  assert step == 10
  assert_same(found, items(10))
  step, found = restored(tmp_path)
  assert (step, list(found)) == (10, ["variables"])
  assert_same(found["variables"], items(10)["variables"])


def test_only_the_newest_steps_are_kept(tmp_path):
  saved(tmp_path, 1, 2, 3, keep=2)
  assert steps(tmp_path) == ["2", "3"]
  saved(tmp_path, 4, 5, keep=2)
  assert steps(tmp_path) == ["4", "5"]


def empty(step):
  shutil.rmtree(step)
  step.mkdir()


def lacks_an_item(step):
  shutil.rmtree(step / "variables")


def has_an_empty_item(step):
  lacks_an_item(step)
  (step / "variables").mkdir()


def has_cut_off_files(step):
  for file in step.rglob("*"):
    if file.is_file():
      file.write_bytes(file.read_bytes()[:10])


@pytest.mark.parametrize(
  "damage", [empty, lacks_an_item, has_an_empty_item, has_cut_off_files]
)
def test_a_damaged_newest_step_is_passed_over_with_a_warning(tmp_path, caplog, damage):
  saved(tmp_path, 2, 5, 12)
  damage(tmp_path / checkpoints.STEPS / "12")
  with caplog.at_level(logging.WARNING, logger="absl"):
    step, found = restored(tmp_path)
  assert step == 5
  assert_same(found["variables"], items(5)["variables"])
  assert "Checkpoint 12 is damaged, passed over: " in caplog.text
  assert "Checkpoint 5" not in caplog.text


def test_a_flip_in_any_file_of_a_step_is_noticed_and_named(tmp_path, caplog):
  saved(tmp_path, 2, 5)
  place = tmp_path / checkpoints.STEPS / "5"
  paths = sorted(each for each in place.rglob("*") if each.is_file())
  assert len(paths) > 8
  rng = np.random.default_rng(0)
  for path in paths:
    at = int(rng.integers(path.stat().st_size))
    flip(path, at)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="absl"):
      step, found = restored(tmp_path)
    assert step == 2
    assert_same(found["variables"], items(2)["variables"])
    name = path.relative_to(place).as_posix()
    told = f"Checkpoint 5 is damaged, passed over: the SHA-256 of {name} is not that"
    assert told in caplog.text or name == integrity.SUMS
    flip(path, at)
  assert restored(tmp_path)[0] == 5


def test_a_flip_is_noticed_before_the_sums_of_the_files_are_there(tmp_path, caplog):
  """As after a kill between the end of a save and the sums: each array has its own."""
  keeper = checkpoints.Checkpoints(tmp_path, 3)
  values = np.random.default_rng(0).normal(size=(200, 300)).astype(np.float32)
  keeper.save(1, {"variables": {"a": jnp.ones((200, 300))}})
  keeper.save(2, {"variables": {"a": jnp.asarray(values)}})
  keeper.close()
  place = tmp_path / checkpoints.STEPS / "2"
  (place / integrity.SUMS).unlink()
  like = {"variables": {"a": jax.ShapeDtypeStruct((200, 300), jnp.float32)}}
  assert restored(tmp_path, like)[0] == 2
  largest = max(place.rglob("*"), key=lambda each: each.stat().st_size)
  assert largest.stat().st_size > 100_000
  flip(largest, largest.stat().st_size // 2)
  with caplog.at_level(logging.WARNING, logger="absl"):
    assert restored(tmp_path, like)[0] == 1
  assert "Checkpoint 2 is damaged, passed over: " in caplog.text


def test_a_run_with_damaged_steps_only_is_refused_with_the_reasons(tmp_path):
  saved(tmp_path, 2, 5)
  for step in ("2", "5"):
    flip(tmp_path / checkpoints.STEPS / step / "_CHECKPOINT_METADATA", 3)
  with pytest.raises(
    ValueError, match=r"None of the checkpoints \[2, 5\] in"
  ) as caught:
    restored(tmp_path)
  assert "5: the SHA-256 of _CHECKPOINT_METADATA is not that in" in str(caught.value)
  assert "start anew in another --workdir" in str(caught.value)


def test_a_save_that_fails_behind_the_scenes_says_so(tmp_path, monkeypatch):
  saved(tmp_path, 1)
  keeper = checkpoints.Checkpoints(tmp_path, 3)

  def full(*_, **__):
    raise OSError(28, "No space left on device")

  keeper.save(2, items(2))
  with monkeypatch.context() as patch:
    patch.setattr(keeper._manager, "wait_until_finished", full)
    with pytest.raises(OSError, match=r"Checkpoint 2 cannot .*No space") as caught:
      keeper.save(3, items(3))
  assert "from the newest checkpoint that is there" in str(caught.value)
  keeper.close()
  assert steps(tmp_path) == ["1", "2"]


def test_a_step_whose_saving_was_interrupted_is_neither_restored_nor_in_the_way(
  tmp_path,
):
  saved(tmp_path, 2)
  place = tmp_path / checkpoints.STEPS
  shutil.copytree(place / "2", place / "4.orbax-checkpoint-tmp")
  assert restored(tmp_path)[0] == 2
  saved(tmp_path, 4)
  assert steps(tmp_path) == ["2", "4"]
  assert_same(restored(tmp_path)[1]["variables"], items(4)["variables"])


def sharded(mesh, spec, shape, dtype=jnp.float32):
  return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def test_a_step_is_restored_onto_the_mesh_that_is_asked_for(tmp_path):
  mesh = distributed.mesh(8)
  values = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
  rows, whole = PartitionSpec("data"), PartitionSpec()
  keeper = checkpoints.Checkpoints(tmp_path, 1)
  tree = {
    "rows": distributed.put_rows(mesh, values),
    "whole": distributed.put_replicated(mesh, values),
  }
  keeper.save(1, {"variables": tree})
  keeper.close()
  half = Mesh(mesh.devices[:4], ("data",), axis_types=(AxisType.Auto,))
  for target, spec in ((mesh, rows), (mesh, whole), (half, rows)):
    like = {name: sharded(target, spec, (16, 3)) for name in tree}
    _, found = restored(tmp_path, {"variables": like})
    for each in found["variables"].values():
      assert each.sharding == NamedSharding(target, spec)
      count = target.size if spec == rows else 1
      shards = {one.device: np.asarray(one.data) for one in each.addressable_shards}
      parts = np.split(values, count)
      for at, device in enumerate(target.devices.flat):
        np.testing.assert_array_equal(shards[device], parts[at % count])
