"""Which state of the package made a result, with git's answers replaced."""

import pathlib

import pytest

from nps_jax.runs import provenance


def test_the_state_is_known_only_of_this_package_s_own_repository(monkeypatch):
  answers = {
    "rev-parse": str(pathlib.Path(provenance.__file__).parents[2]),
    "describe": "c",
  }
  monkeypatch.setattr(provenance, "_git", lambda root, *words: answers[words[0]])
  assert provenance.package()["commit"] == "c"
  answers["rev-parse"] = str(pathlib.Path(provenance.__file__).parents[3])
  assert provenance.package()["commit"] is None
  monkeypatch.undo()
  monkeypatch.setenv("PATH", "")
  assert provenance.package()["commit"] is None


def test_a_part_s_seconds_add_up_also_if_it_is_broken_off(tmp_path, monkeypatch):
  clock = iter([10.0, 12.5, 20.0, 21.0, 30.0, 34.0])
  monkeypatch.setattr(provenance.time, "perf_counter", lambda: next(clock))
  monkeypatch.setattr(provenance, "package", lambda: {"version": "1", "commit": "c"})
  with pytest.raises(KeyboardInterrupt), provenance.timed(tmp_path, "train"):
    raise KeyboardInterrupt
  with provenance.timed(tmp_path, "train"):
    pass
  with provenance.timed(tmp_path, "calibrate"):
    pass
  made = {"version": "1", "commit": "c"}
  assert provenance.read(tmp_path) == {
    "train": {"seconds": 3.5, **made},
    "calibrate": {"seconds": 4.0, **made},
  }
  assert provenance.read(tmp_path / "elsewhere") == {}
