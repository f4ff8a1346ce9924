"""Which state of the package made a result, with git's answers replaced."""

import pathlib

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
