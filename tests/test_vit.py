"""The vision transformer against transformers' stored answers and slow NumPy."""

import functools
import json
import math
import pathlib

from golden import encoder_rule
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs

from nps_jax import config as settings
from nps_jax import evaluating
from nps_jax import geometry
from nps_jax import inference
from nps_jax import trainer
from nps_jax.data import sources
from nps_jax.models import encoder
from nps_jax.models import vit
from nps_jax.models import weights
from nps_jax.study import rivals
from nps_jax.study import variants

GOLDEN = json.loads((pathlib.Path(__file__).parent / "golden" / "vit.json").read_text())
SMALL = {
  registers: geometry.ViT(
    width=48, depth=3, heads=2, registers=int(registers), trained=3
  )
  for registers in GOLDEN
}
CASES = [(kind, size) for kind in GOLDEN for size in GOLDEN[kind]["answers"]]


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """The stored networks under their numbers of registers."""
  for name, kind in SMALL.items():
    monkeypatch.setitem(geometry.ENCODERS, name, kind)


def ruled(name: str) -> dict[str, np.ndarray]:
  """A file's tensors, as golden/make_vit.py draws them."""
  shapes = {key: tuple(shape) for key, shape in GOLDEN[name]["names"].items()}
  return {key: encoder_rule.tensor(key, shape) for key, shape in shapes.items()}


@functools.cache
def params(name: str, deepest: int = 3):
  tensors = {key: held for key, held in ruled(name).items() if not weights.ignored(key)}
  return weights.convert(tensors, name, deepest, pathlib.Path("ruled"))


def features(name: str, size: tuple[int, int], deepest=3, dtype="float32"):
  model = encoder.build(name, deepest, jnp.dtype(dtype))
  images = encoder.normalise(jnp.asarray(encoder_rule.images(*size)))
  found = jax.jit(model.apply)({"params": params(name, deepest)}, images)
  return {level: np.asarray(feats) for level, feats in found.items()}


@pytest.mark.parametrize(("name", "size"), CASES)
def test_every_block_agrees_with_transformers(name, size):
  """With no registers and with four; at the size of training and at others."""
  found = features(name, tuple(map(int, size.split("x"))))
  assert list(found) == [1, 2, 3]
  answers = GOLDEN[name]["answers"][size]
  for (block, feats), want in zip(found.items(), answers, strict=True):
    assert feats.shape == tuple(want["shape"]) and feats.dtype == np.float32
    values = feats.reshape(-1)[encoder_rule.places(block, feats.size)]
    np.testing.assert_allclose(values, want["values"], rtol=0, atol=1e-4)
    np.testing.assert_allclose(feats.mean(dtype=np.float64), want["mean"], atol=1e-5)
    np.testing.assert_allclose(feats.std(dtype=np.float64), want["std"], rtol=1e-5)


def test_a_file_under_transformers_names_is_used_whole():
  for name in SMALL:
    expected = weights.expected_shapes(name, 3)
    given = {key: tuple(shape) for key, shape in GOLDEN[name]["names"].items()}
    assert given.pop("embeddings.mask_token") == (1, 48)
    assert given == expected


def slow_cubic(gap: float, a: float) -> float:
  gap = abs(gap)
  if gap <= 1:
    return (a + 2) * gap**3 - (a + 3) * gap**2 + 1
  return a * (gap**3 - 5 * gap**2 + 8 * gap - 4) if gap < 2 else 0.0


@pytest.mark.parametrize(
  ("source", "target"), [(37, 16), (37, 18), (3, 6), (3, 2), (5, 5), (4, 1), (2, 9)]
)
def test_plain_interpolation_repeats_the_border(source, target):
  found = vit.bicubic(source, target, smooth=False)
  want = np.zeros((target, source))
  for row in range(target):
    centre = (row + 0.5) * source / target - 0.5
    for at in range(math.floor(centre) - 1, math.floor(centre) + 3):
      want[row, min(max(at, 0), source - 1)] += slow_cubic(at - centre, -0.75)
  np.testing.assert_allclose(found, want, atol=1e-6)
  assert found.dtype == np.float32


@pytest.mark.parametrize(
  ("source", "target"), [(37, 16), (37, 18), (3, 6), (3, 2), (5, 5), (4, 1), (2, 9)]
)
def test_smooth_interpolation_takes_as_much_as_a_cell_covers(source, target):
  found = vit.bicubic(source, target, smooth=True)
  step = source / target
  for row in range(target):
    centre, wide = (row + 0.5) * step, max(step, 1)
    want = [slow_cubic((at + 0.5 - centre) / wide, -0.5) for at in range(source)]
    np.testing.assert_allclose(found[row], np.array(want) / sum(want), atol=1e-6)


def test_places_are_resized_along_both_axes():
  """A column that is a straight line along rows, another along columns, stays so."""
  rows, columns = np.mgrid[:9, :9]
  table = np.float32(np.stack([rows, columns], axis=-1))
  found = np.asarray(vit.resized(jnp.asarray(table), (18, 27), smooth=True))
  want = (np.arange(18) + 0.5) / 2 - 0.5, (np.arange(27) + 0.5) / 3 - 0.5
  inner = slice(6, -6)
  np.testing.assert_allclose(found[inner, 7, 0], want[0][inner], atol=1e-5)
  np.testing.assert_allclose(found[7, inner, 1], want[1][inner], atol=1e-5)


def test_nothing_deeper_is_held():
  found = features("4", (28, 56), deepest=2)
  whole = features("4", (28, 56))
  assert list(found) == [1, 2] and "block3" not in params("4", 2)
  np.testing.assert_allclose(found[2], whole[2], rtol=1e-5, atol=1e-5)


def test_bfloat16_computes_roughly_and_answers_in_float32():
  fine, rough = features("4", (84, 84)), features("4", (84, 84), dtype="bfloat16")
  for block, feats in rough.items():
    assert feats.dtype == np.float32
    gap = np.abs(feats - fine[block]).mean() / np.abs(fine[block]).mean()
    assert 1e-4 < gap < 0.05


@pytest.mark.parametrize("deepest", [0, 4])
def test_blocks_outside_the_network_are_refused(deepest):
  with pytest.raises(ValueError, match=rf"level is {deepest}; expected 1 .* to 3"):
    encoder.build("0", deepest).init(jax.random.key(0), jnp.zeros((1, 28, 28, 3)))
  with pytest.raises(ValueError, match=rf"level is {deepest}; expected 1 .* to 3"):
    encoder.check_level("0", deepest)


def test_sides_that_patches_do_not_fill_are_refused():
  with pytest.raises(ValueError, match=r"28 x 32 pixels.* multiples of 14"):
    encoder.build("0", 1).init(jax.random.key(0), jnp.zeros((1, 28, 32, 3)))


@pytest.mark.slow
def test_a_run_on_blocks_goes_through_every_part(root, tmp_path, monkeypatch):
  """Trained, calibrated, opened again, evaluated, and beside both rivals."""
  kind = geometry.ViT(width=24, depth=6, heads=2, registers=4, trained=5)
  monkeypatch.setitem(geometry.ENCODERS, "dinov2_vits14_reg", kind)
  config = runs.config(
    root,
    data__category="tray",
    image_size=(56, 84),
    encoder__name="dinov2_vits14_reg",
    encoder__levels=(2, 4, 6),
    encoder__deepest=0,
    structural__enabled=True,
    logical__local_width=16,
  )
  trainer.fit(config, tmp_path / "run")
  run = inference.open_run(tmp_path / "run")
  calibration = run.calibrations["tray"]
  assert calibration.usual.shape == (4, 6, 32)
  assert calibration.priors.memory.patches.shape[1] == 3 * 24
  assert calibration.priors.vocabulary.codes.shape == (32, 24)
  assert set(calibration.map_weights) == set(settings.MAPS)
  data = sources.open_all(run.about.config.data, 0)[0]
  for scored in inference.scores(run, data.test[:2], "tray"):
    assert scored.map.shape == (14, 21) and np.isfinite(scored.map).all()
  (measured,) = evaluating.evaluate(run)
  assert 0 <= measured.result["au_spro"]["mean"]["0.05"] <= 1
  for rival in variants.RIVALS:
    rivals.run(rival, config, tmp_path / rival)
    (result,) = json.loads((tmp_path / rival / "results.json").read_text())
    assert 0 <= result["image_auroc"]["pooled"] <= 1
