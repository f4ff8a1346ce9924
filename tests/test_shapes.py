"""The size that images of any shape are scored at, and a whole run at such a size."""

import io
import itertools

import numpy as np
from PIL import Image
import pytest
import runs

from nps_jax import config as settings
from nps_jax import evaluating
from nps_jax import inference
from nps_jax import trainer
from nps_jax.data import folder
from nps_jax.data import records
from nps_jax.data import shapes
from nps_jax.data import sources
from nps_jax.runs import telemetry


def image(height, width):
  buffer = io.BytesIO()
  Image.new("L", (width, height)).save(buffer, "PNG")
  return records.Record("a", "", "train", "good", buffer.getvalue())


@pytest.mark.parametrize(
  ("sizes", "pixels", "want"),
  [
    ([(900, 900)], 256 * 256, 256),
    ([(500, 1250)], 256 * 256, (160, 416)),
    ([(1250, 500)], 256 * 256, (416, 160)),
    ([(192, 384)], 192 * 384, (192, 384)),
    ([(10, 2000)], 64 * 64, (32, 128)),  # no side is below 32
    ([(100, 100), (90, 110), (100, 800)], 64 * 64, 64),  # what is usual counts
  ],
)
def test_the_size_is_of_the_images_shape(sizes, pixels, want):
  assert shapes.find([image(*size) for size in sizes], pixels, 32) == want


def test_of_all_sizes_near_the_number_of_pixels_none_is_more_alike():
  for ratio, step in itertools.product(np.exp(np.linspace(-2, 2, 9)), (32, 28)):
    h, w = shapes.nearest(float(ratio), 900**2, step)
    assert h % step == w % step == 0 and 0.85 < h * w / 900**2 < 1.15
    assert abs(np.log(h / w / ratio)) < 0.06


def test_flags_and_variants_take_every_form_of_size(root):
  config = settings.defaults()
  for value in ((64, 96), "auto", 32):
    changed = settings.assigned(config, {"image_size": value})
    assert changed.image_size == value and config.image_size == 256
  assert settings.image_shape(changed) == (32, 32)
  with pytest.raises(ValueError, match="no images have settled it"):
    settings.image_shape(settings.assigned(config, {"image_size": "auto"}))


@pytest.fixture(scope="module")
def strips(root, tmp_path_factory):
  """Every image and mask of the tiny tray at 40 x 64."""
  place = tmp_path_factory.mktemp("strips")
  for path in sorted((root / "tray").rglob("*")):
    target = place / path.relative_to(root)
    if path.suffix == ".png":
      target.parent.mkdir(parents=True, exist_ok=True)
      with Image.open(path) as whole:
        whole.resize((64, 40), Image.Resampling.NEAREST).save(target)
    elif path.is_file():
      target.parent.mkdir(parents=True, exist_ok=True)
      target.write_bytes(path.read_bytes())
  return place


def test_a_run_on_strips(strips, tmp_path):
  """Settled by the data, stored, found again; maps and masks are of the strip."""
  config = runs.config(
    strips, data__category="tray", image_size="auto", image_pixels=64 * 96
  )
  run = trainer.fit(config, tmp_path / "run")
  assert settings.image_shape(run.about.config) == (64, 96)
  again = inference.open_run(tmp_path / "run")
  assert settings.image_shape(again.about.config) == (64, 96)
  data = sources.open_all(again.about.config.data, 0)[0]
  (scored,) = list(inference.scores(again, data.test[:1], "tray"))
  assert scored.map.shape == (16, 24)
  (measured,) = evaluating.evaluate(again)
  assert 0 <= measured.result["au_spro"]["mean"]["0.05"] <= 1
  other = settings.assigned(config, {"image_size": "auto"})
  assert trainer.fit(other, tmp_path / "run").step == run.step  # goes on, as it was
  assert telemetry.read(run.folder)[-1]["step"] == run.step
  assert folder.open_category(strips, "tray").layout == "loco"
