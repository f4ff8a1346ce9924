"""A folder and its prepared form give the same training and the same results."""

import sys

import jax
import numpy as np
import pytest
import runs

from nps_jax import inference
from nps_jax import telemetry
from nps_jax import trainer
from nps_jax.data import folder
from nps_jax.data import sources
from nps_jax.data import tfds_loco


@pytest.fixture(scope="module")
def data_dir(root, tmp_path_factory):
  """The drawn data set, prepared."""
  place = tmp_path_factory.mktemp("prepared")
  tfds_loco.prepare(str(root), place)
  return place


def lasting(lines):
  """What two runs of the same settings share: all but times and the data's place."""
  left_out = ("second", "config_hash")
  return [
    {name: value for name, value in line.items() if not any(map(name.count, left_out))}
    for line in lines
  ]


def test_the_config_names_the_source(root, data_dir):
  config = runs.config(root)
  assert sources.open_all(config.data, 0) == folder.open_all(config.data, 0)
  config.data.source, config.data.root = "tfds", str(data_dir)
  found = sources.open_all(config.data, 0)
  assert [each.category for each in found] == ["tray", "bottle"]
  assert str(data_dir) in str(found[0].train[0].image)


def test_training_and_results_are_those_of_the_folder(run, data_dir, tmp_path):
  """Bit for bit: losses, parameters, calibration and all measures."""
  other = trainer.fit(runs.config(data_dir, data__source="tfds"), tmp_path)
  lines, others = (lasting(telemetry.read(each.folder)) for each in (run, other))
  assert lines == others and [line["step"] for line in lines] == list(range(1, 7))
  assert all("loss" in line for line in lines)
  for name in ("variables", "calibrations"):
    trees = [jax.tree.leaves(getattr(each, name)) for each in (run, other)]
    for one, another in zip(*trees, strict=True):
      np.testing.assert_array_equal(np.asarray(one), np.asarray(another))
  results, again = (lasting(inference.evaluate(each)) for each in (run, other))
  assert str(results) == str(again) and len(results) == 2  # as text: NaN is NaN
  assert "tensorflow" not in sys.modules
