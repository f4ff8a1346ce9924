"""The encoder inside the package: what it is, and that it has learned to see."""

import hashlib
import json
import re

import jax
import numpy as np
import pytest
import runs
import safetensors.numpy

from nps_jax.models import encoder
from nps_jax.models import weights
from nps_jax.pretraining import contrast
from nps_jax.pretraining import scenes
from nps_jax.study import variants

CARD = weights.BUILTIN.with_suffix(".md").read_text(encoding="utf-8")


def test_the_file_is_small_and_the_one_on_the_card():
  content = weights.BUILTIN.read_bytes()
  tensors = safetensors.numpy.load(content)
  assert len(content) <= 6e6
  assert {str(each.dtype) for each in tensors.values()} == {"float16"}
  assert f"`{hashlib.sha256(content).hexdigest()}`" in CARD
  loaded = weights.load("builtin", "resnet18", 0)
  assert loaded.deepest == 4
  assert loaded.identity["file"] == "builtin.safetensors"
  assert sum(each.size for each in jax.tree.leaves(loaded.params)) <= 3e6


def test_the_card_gives_the_settings_of_the_config():
  held = json.loads(re.search(r"```json\n(.*?)```", CARD, re.DOTALL)[1])
  config = variants.read_module(runs.CONFIGS / "pretrain.py").get_config()
  assert held == config.to_dict()
  assert "--config=configs/pretrain.py --workdir=" in CARD


def test_another_architecture_is_told_what_the_file_is_of():
  with pytest.raises(
    ValueError, match=r"does not hold resnet50 .* it fits: resnet18\."
  ):
    weights.load("builtin", "resnet50", 0)


def found_again(source):
  """The share of objects whose likest in other photographs is of their kind."""
  held = weights.load(source, "resnet18", 4).params
  truth = jax.jit(lambda key: scenes.draw(key, 24, 2, 64))(jax.random.key(2_000_000))
  feats = encoder.Encoder("resnet18", 4).apply(
    {"params": held}, encoder.normalise(truth.image)
  )
  means, visible = contrast.means({4: feats[4]}, truth.item, scenes.ITEMS)
  seen = np.asarray(visible)
  rows, kind = np.asarray(means[4])[seen], np.ravel(truth.kind)[seen]
  photograph = np.repeat(np.arange(48), scenes.ITEMS)[seen]
  rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
  rows /= np.linalg.norm(rows, axis=1, keepdims=True)
  likeness = rows @ rows.T
  likeness[photograph[:, None] == photograph[None]] = -np.inf
  return np.mean(kind[likeness.argmax(1)] == kind)


@pytest.mark.slow
def test_it_finds_an_object_again_however_it_lies():
  assert found_again("builtin") > found_again("random") + 0.2
