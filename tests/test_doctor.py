"""What the doctor sees in good and bad data, and what it says of them."""

import json
import re
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest
import runs

from nps_jax import doctor


def tree(root, count=6, test=("good/0", "dent/0")):
  """Images of different content; masks for what is not good."""
  rng = np.random.default_rng(0)

  def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)

  for at in range(count):
    save(root / f"train/good/{at}.png", rng.integers(0, 256, (40, 60, 3), np.uint8))
  for name in test:
    save(root / f"test/{name}.png", rng.integers(0, 256, (40, 60, 3), np.uint8))
    if not name.startswith("good"):
      mask = np.zeros((40, 60), np.uint8)
      mask[3:9, 4:9] = 255
      save(root / f"ground_truth/{name}_mask.png", mask)
  return root


def found(root, **changes):
  return doctor.examine(runs.config(root, data__category="all", **changes))


def test_good_data_have_no_problem_and_are_told(tmp_path):
  tree(tmp_path / "nuts")
  (tmp_path / "nuts/train/good/notes.txt").write_text("mine")
  seen = found(tmp_path)
  assert seen["problems"] == [] and seen["devices"][0].startswith("cpu")
  (nuts,) = seen["categories"]
  assert nuts["images"] == {"train": 4, "validation": 2, "test/dent": 1, "test/good": 1}
  assert nuts["layout"] == "mvtec_ad" and nuts["masks"] == 1
  assert nuts["sizes"] == {"60 x 40": 8} and nuts["pixels"] == {"PNG RGB": 8}
  assert nuts["ignored"] == {"train/good": "1 (.txt)"} and nuts["copies"] == []
  text = doctor.to_text(seen)
  assert text.startswith("Nothing stands in the way of a training.")
  assert "nuts has 6 normal images; below 40" in text
  assert "not read in train/good: 1 (.txt)" in text and "Encoder: name resnet" in text


def test_copies_sizes_and_plain_images_are_remarks(tmp_path):
  base = tree(tmp_path / "nuts", test=("dent/0",))
  shutil.copy(base / "train/good/0.png", base / "test/dent/1.png")
  shutil.copy(
    base / "ground_truth/dent/0_mask.png", base / "ground_truth/dent/1_mask.png"
  )
  shutil.copy(base / "train/good/1.png", base / "train/good/7.png")
  Image.new("RGB", (30, 30)).save(base / "train/good/8.png")
  seen = found(tmp_path)
  remarks = "\n".join(seen["remarks"])
  assert seen["problems"] == []
  for words in (
    "1 test images are copies of normal ones that are learned from, such as nuts/",
    "nuts: 1 images are there more than once.",
    "1 images are not of the usual size of 60 x 40, but 30 x 30.",
    "nuts has no normal test images, so no AUROC",
    "of one colour all over are ",
  ):
    assert words in remarks, words


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda base: shutil.rmtree(base / "train"), "has no folder train"),
    (lambda base: (base / "train/good/3.png").write_bytes(b""), "3.png cannot be read"),
    (
      lambda base: shutil.rmtree(base / "ground_truth/dent"),
      None,  # without masks it is plain
    ),
    (
      lambda base: Image.fromarray(
        255 - np.asarray(Image.open(base / "ground_truth/dent/0_mask.png"))
      ).save(base / "ground_truth/dent/0_mask.png"),
      "most masks look inverted",
    ),
    (
      lambda base: [(base / f"train/good/{at}.png").unlink() for at in range(4)],
      "needs",
    ),
    (shutil.rmtree, "holds no category"),
  ],
)
def test_what_would_end_a_training_is_a_problem(tmp_path, change, words):
  base = tree(tmp_path / "nuts")
  change(base)
  seen = found(tmp_path)
  assert bool(seen["problems"]) == (words is not None)
  if words:
    assert any(words in text for text in seen["problems"]), seen["problems"]
    assert "Problems, with which a training fails: " in doctor.to_text(seen)


def test_wrong_settings_and_weights_are_problems_too(tmp_path):
  tree(tmp_path / "nuts")
  seen = found(tmp_path, image_size=100, encoder__weights="lost.safetensors")
  assert len(seen["problems"]) >= 2
  assert any("image_size" in text for text in seen["problems"])
  assert any("lost.safetensors" in text for text in seen["problems"])


def test_the_command_s_status_says_whether_a_training_would_run(tmp_path):
  tree(tmp_path / "nuts")
  command = [sys.executable, "-m", "nps_jax.doctor", "--config=folder", "--json"]
  command += ["--noestimate"]
  command += [f"--config.data.root={tmp_path}", "--config.encoder.weights=random"]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout)["categories"][0]["category"] == "nuts"
  shutil.rmtree(tmp_path / "nuts/train")
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 1 and json.loads(done.stdout)["problems"]


def test_seconds_and_memory_are_told_unless_a_training_would_fail(tmp_path):
  tree(tmp_path / "nuts")
  config = runs.config(tmp_path, data__category="all", codebook__parts=8)
  seen = doctor.examine(config, estimated=True)
  (run,) = seen["expected"]["runs"]
  assert run["categories"] == ["nuts"]
  assert run["images"] == {"train": 4, "validation": 2, "test": 2}
  assert list(run["parts"]) == ["features", "train", "calibrate", "evaluate", "predict"]
  for cost in run["parts"].values():
    assert cost["seconds"] > 0 and cost["host_mib"] > 20
  text = doctor.to_text(seen)
  assert "Expected on cpu: cpu x 8, 64 x 64 pixels" in text
  assert re.search(r"predict +[\d.]+ s an image +\d+ MiB of the host", text)
  shutil.rmtree(tmp_path / "nuts/train")
  assert "expected" not in doctor.examine(config, estimated=True)
