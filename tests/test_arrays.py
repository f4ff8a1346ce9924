"""Trees of arrays in a run's folder, with their sums."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nps_jax import distributed
from nps_jax.runs import arrays


def assert_same(found, wanted):
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def test_frozen_weights_come_back_bit_by_bit(tmp_path):
  rng = np.random.default_rng(0)
  odd = np.float32([np.nan, -0.0, np.inf, np.finfo(np.float32).tiny / 2])
  tree = {
    "encoder": {
      "block1.conv": {"kernel": rng.normal(size=(3, 3, 2, 4)).astype(np.float32)},
      "stem": {"bias": odd, "half": jnp.arange(5, dtype=jnp.bfloat16)},
    },
    "context": {"vectors": rng.normal(size=(6, 2)).astype(np.float32).T},
  }
  arrays.write(tmp_path / arrays.FROZEN, tree)
  assert_same(arrays.read(tmp_path / arrays.FROZEN), tree)


def test_a_changed_byte_in_the_frozen_weights_is_noticed(tmp_path):
  path = tmp_path / arrays.FROZEN
  arrays.write(path, {"encoder": {"a": np.ones(9, np.float32)}})
  content = path.read_bytes()
  for at in (0, len(content) // 2, len(content) - 1):
    path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
    with pytest.raises(ValueError, match=r"frozen\.safetensors is damaged: its SHA"):
      arrays.read(tmp_path / arrays.FROZEN)
  path.write_bytes(content)
  assert set(arrays.read(tmp_path / arrays.FROZEN)) == {"encoder"}
  (tmp_path / "frozen.sha256").unlink()
  with pytest.raises(FileNotFoundError, match=r"frozen\.sha256 is missing\. Start the"):
    arrays.read(tmp_path / arrays.FROZEN)


def test_frozen_weights_are_written_once_and_again_where_damaged(tmp_path, caplog):
  first, second = {"a": np.zeros(2, np.float32)}, {"a": np.ones(2, np.float32)}
  arrays.write_once(tmp_path / arrays.FROZEN, first)
  arrays.write_once(tmp_path / arrays.FROZEN, second)
  assert_same(arrays.read(tmp_path / arrays.FROZEN), first)
  content = bytearray((tmp_path / arrays.FROZEN).read_bytes())
  content[5] ^= 1
  (tmp_path / arrays.FROZEN).write_bytes(content)
  with caplog.at_level(logging.WARNING, logger="absl"):
    arrays.write_once(tmp_path / arrays.FROZEN, second)
  assert "frozen.safetensors is damaged: it is written anew" in caplog.text
  assert_same(arrays.read(tmp_path / arrays.FROZEN), second)


def test_hosts_that_do_not_lead_write_no_weights(tmp_path, monkeypatch):
  monkeypatch.setattr(distributed, "is_lead", lambda: False)
  arrays.write_once(tmp_path / arrays.FROZEN, {"a": np.zeros(2, np.float32)})
  assert list(tmp_path.iterdir()) == []
