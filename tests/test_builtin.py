"""The encoder inside the package: what it is, and that it has learned to see."""

import hashlib
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import safetensors.numpy

from nps_jax import variants
from nps_jax.data import scenes
from nps_jax.models import encoder
from nps_jax.models import weights

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


def found_again(source, layouts=12, variants=4):
  """The share of variants that another photograph's pooled features find."""
  held = weights.load(source, "resnet18", 4).params
  truth = jax.jit(lambda key: scenes.draw(key, layouts, variants, 64))(
    jax.random.key(2_000_000)
  )
  feats = encoder.Encoder("resnet18", 4).apply(
    {"params": held}, encoder.normalise(truth.image)
  )
  moments = [each(feats[4], axis=(1, 2)) for each in (jnp.mean, jnp.std)]
  pooled = np.concatenate(moments, axis=1).reshape(2, layouts, variants, -1)
  pooled /= pooled.std(axis=(0, 1, 2)) + 1e-6
  gaps = np.square(pooled[0][:, :, None] - pooled[1][:, None]).sum(-1)
  return np.mean(gaps.argmin(-1) == np.arange(variants))


def test_it_tells_a_changed_object_from_another_photograph():
  assert found_again("builtin") > found_again("random") + 0.2
