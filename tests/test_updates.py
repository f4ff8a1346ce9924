"""The features that a training keeps, against the encoder image by image."""

import logging

import jax
import ml_collections
import numpy as np
import pytest
import runs

from nps_jax import detector
from nps_jax import distributed
from nps_jax import updates
from nps_jax.data import decoding
from nps_jax.data import folder
from nps_jax.models import weights

IMAGES = 11  # of batches of 8, so that the second has rows of padding


@pytest.fixture(scope="module")
def setting(root):
  """A model, its encoder's parameters, and some images; 3 and 4 are what it reads."""
  config = runs.config(root)
  data = folder.open_all(config.data, config.seed)
  frozen = weights.load("random", config.encoder.name, 4).params
  config = ml_collections.FrozenConfigDict(config)
  model = detector.Detector(config, ("tray", "bottle"), 4, None)
  return model, frozen, data[0].train[:IMAGES]


def test_kept_features_are_those_of_each_image(setting):
  model, frozen, images = setting
  features = updates.cached_features(model, distributed.mesh(8), frozen, images)
  assert sorted(features) == [3, 4]
  forward = jax.jit(model.features)
  for row, image in enumerate(images):
    alone = forward(frozen, decoding.decode(image, (64, 64))[None])
    for level, values in features.items():
      assert values.shape[0] == IMAGES
      np.testing.assert_allclose(values[row], alone[level][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.99, 1.0])
def test_features_that_do_not_fit_are_not_kept_which_is_told(setting, caplog, share):
  model, frozen, images = setting
  caplog.set_level(logging.INFO)
  # At 64 pixels: 8 x 8 of 128 channels at level 3, 4 x 4 of 256 at level 4.
  need = IMAGES * 4 * (8 * 8 * 128 + 4 * 4 * 256)
  config = ml_collections.ConfigDict(model.config).copy_and_resolve_references()
  config.train.feature_cache = share * need / 2**30
  small = detector.Detector(
    ml_collections.FrozenConfigDict(config), model.categories, 4, None
  )
  kept = updates.cached_features(small, distributed.mesh(8), frozen, images)
  assert (kept is None) == (share < 1)
  assert ("features of 11 images take 0.00 GiB" in caplog.text) == (share < 1)
