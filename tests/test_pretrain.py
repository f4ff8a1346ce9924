"""Pretraining at a tiny size: its curve, going on, and the file that it writes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from nps_jax import config as settings
from nps_jax.models import encoder
from nps_jax.models import weights
from nps_jax.pretraining import training
from nps_jax.runs import integrity
from nps_jax.runs import interruption
from nps_jax.runs import telemetry
from nps_jax.study import variants

pytestmark = pytest.mark.slow  # with all that trains the built-in encoder

CURVE = (10.707920, 16.468843, 9.627271, 5.230621)  # at steps 5, 10, 15, 20


@pytest.fixture(scope="module")
def config():
  found = variants.read_module(runs.CONFIGS / "pretrain.py").get_config()
  found.image_size, found.kits, found.photographs, found.steps = 32, 1, 4, 20
  found.deepest, found.warmup, found.log_every = 3, 5, 5
  found.learning_rate = 2e-4
  return found


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("pretrain")
  return workdir, training.fit(config, workdir)


def test_twenty_steps_give_the_stored_curve(trained):
  lines = telemetry.read(trained[0])
  assert [line["step"] for line in lines] == [5, 10, 15, 20]
  np.testing.assert_allclose([line["loss"] for line in lines], CURVE, rtol=2e-3)
  for line in lines:
    terms = {name: value for name, value in line.items() if "/f" in name}
    assert set(terms) == {
      f"{term}/f{level}" for term in ("contrast", "novelty") for level in (2, 3)
    }
    np.testing.assert_allclose(line["loss"], sum(terms.values()), rtol=1e-5)


def test_an_interrupted_training_goes_on_to_the_same_file(config, trained, tmp_path):
  class Watch(interruption.Watch):
    """Asks for an end after some looks at it."""

    looks = 0

    @property
    def asked(self):
      self.looks += 1
      return self.looks > 12

    @asked.setter
    def asked(self, value):
      pass

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(interruption, "Watch", Watch)
    with pytest.raises(KeyboardInterrupt):
      training.fit(config, tmp_path)
  assert not (tmp_path / training.FILE).exists()
  found = training.fit(config, tmp_path)
  assert int(found.step) == 20
  for path in (tmp_path, trained[0]):
    assert integrity.intact(path / training.FILE)
  assert (tmp_path / training.FILE).read_bytes() == (
    trained[0] / training.FILE
  ).read_bytes()
  lines = [line["step"] for line in telemetry.read(tmp_path)]
  assert lines[-2:] == [15, 20]


def test_the_file_is_an_encoder_in_half_precision(config, trained):
  workdir, state = trained
  held = weights.load(str(workdir / training.FILE), "resnet18", 0)
  assert held.deepest == 3
  whole = training.finished_encoder(config, state.params["encoder"])
  for one, other in zip(
    jax.tree.leaves(held.params), jax.tree.leaves(whole), strict=True
  ):
    np.testing.assert_allclose(one, other, rtol=2e-3, atol=1e-6)
  image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
  model = encoder.Encoder("resnet18", 3)
  images = encoder.normalise(jnp.asarray(image))
  first, second = (
    model.apply({"params": each}, images)[3] for each in (held.params, whole)
  )
  np.testing.assert_allclose(first, second, rtol=0.01, atol=0.01 * np.abs(second).max())


def test_a_loss_that_is_not_finite_stops_it(config, tmp_path):
  wild = config.copy_and_resolve_references()
  wild.learning_rate, wild.warmup = 1e30, 0
  with pytest.raises(FloatingPointError, match="At step 5 the loss is not finite"):
    training.fit(wild, tmp_path)
  assert not (tmp_path / training.FILE).exists()


def test_another_training_in_the_same_folder_is_refused(config, trained):
  other = config.copy_and_resolve_references()
  other.seed, other.log_every = 3, 1
  with pytest.raises(ValueError, match="holds a run with other") as caught:
    training.fit(other, trained[0])
  assert str(caught.value).splitlines()[1:-1] == ["  config.seed: 0 there, 3 asked for"]


@pytest.mark.parametrize(
  ("name", "value"),
  [
    *(("steps", 0), ("kits", 0), ("photographs", 3), ("log_every", 0)),
    *(
      ("checkpoint_every", 0),
      ("name", "vgg"),
      ("deepest", 2),
      ("deepest", 6),
      ("image_size", 48),
    ),
    *(("image_size", 0), ("learning_rate", 0.0), ("warmup", -1)),
    *(("weight_decay", -0.1), ("name", "resnet50")),
  ],
)
def test_settings_are_checked_before_anything_is_written(config, tmp_path, name, value):
  wrong = config.copy_and_resolve_references()
  settings.assign(wrong, {name: value})
  says = rf"^config\.{re.escape(name)} is {value!r}; expected "
  with pytest.raises(ValueError, match=says):
    training.fit(wrong, tmp_path / "new")
  assert not (tmp_path / "new").exists()
