"""A folder and its prepared form give the same training; both are evaluated."""

import sys

import jax
import numpy as np
import pytest
import runs

from nps_jax import evaluating
from nps_jax import publishing
from nps_jax import trainer
from nps_jax.data import folder
from nps_jax.data import sources
from nps_jax.data import tfds_loco
from nps_jax.report import page
from nps_jax.runs import telemetry


@pytest.fixture(scope="module")
def data_dir(root, tmp_path_factory):
  """The drawn data set, prepared."""
  place = tmp_path_factory.mktemp("prepared")
  tfds_loco.prepare(str(root), place)
  return place


def timeless(lines):
  """The lines of metrics.jsonl without what differs from run to run."""
  return [
    {name: value for name, value in line.items() if "second" not in name}
    for line in lines
  ]


def test_the_config_names_the_source(root, data_dir):
  config = runs.config(root)
  assert sources.open_all(config.data, 0) == folder.open_all(config.data, 0)
  config.data.source, config.data.root = "tfds", str(data_dir)
  found = sources.open_all(config.data, 0)
  assert [each.category for each in found] == ["tray", "bottle"]
  assert str(data_dir) in str(found[0].train[0].image)


@pytest.mark.slow
def test_training_is_that_of_the_folder(run, data_dir, tmp_path, monkeypatch):
  """Bit for bit: losses, parameters, calibration; the test images come from it too."""
  other = trainer.fit(runs.config(data_dir, data__source="tfds"), tmp_path)
  lines, others = (timeless(telemetry.read(each.folder)) for each in (run, other))
  assert lines == others and [line["step"] for line in lines] == list(range(1, 7))
  assert all("loss" in line for line in lines)
  for name in ("variables", "calibrations"):
    trees = [jax.tree.leaves(getattr(each, name)) for each in (run, other)]
    for one, another in zip(*trees, strict=True):
      np.testing.assert_array_equal(np.asarray(one), np.asarray(another))
  monkeypatch.setattr(
    publishing,
    "measure",
    lambda data, *_, **__: page.Category(data._asdict(), (), {}, True),
  )
  monkeypatch.setattr(evaluating, "_more", lambda *_: {})
  found, wanted = (
    [each.result for each in evaluating.evaluate(one)] for one in (other, run)
  )
  for one, another in zip(found, wanted, strict=True):
    assert one["defects"] == another["defects"]
    assert [each[:4] for each in one["test"]] == [each[:4] for each in another["test"]]
    assert all(str(data_dir) in str(each.image) for each in one["test"])
  assert "tensorflow" not in sys.modules
