"""Anomaly maps, scores and seconds of anomalib's detectors, beside this package's.

PatchCore, PaDiM, STFPM and Reverse Distillation as anomalib has them, at its defaults,
but with the encoder that is given: a ResNet-18 up to layer3 under torchvision's names.
Nothing is downloaded. In an environment of its own (a few GB, PyTorch among them):

  pip install -r tests/peers/requirements.txt
  python tests/peers/compare.py --model=patchcore --data=ROOT --category=tray \
    --weights=resnet18_to_layer3.safetensors --out=OUT

writes OUT/MODEL/CATEGORY/test/KIND/IMAGE.tiff, at the image's size, OUT/MODEL/
CATEGORY.csv (scores) and OUT/MODEL/CATEGORY.json (seconds). In this package's own
environment they are then judged as its own maps are:

  python -m nps_jax.evaluate --maps=OUT/patchcore --dataset=ROOT --category=tray \
    --scores=OUT/patchcore/tray.csv --out=OUT/patchcore/tray/results.json

What was found: configs/results/PEERS.md. What differs from `anomalib train`: its loop
without Lightning's, so nothing is validated or stopped early on test images; scores and
maps are not scaled to 0..1, which no AUROC sees; the patches of PatchCore's coreset are
chosen lazily (coreset.py) unless --coreset=theirs, which takes most of an hour.
"""

import argparse
import csv
import json
import pathlib
import time
from unittest import mock

from anomalib.models.components import KCenterGreedy
from anomalib.models.image import Padim
from anomalib.models.image import Patchcore
from anomalib.models.image import ReverseDistillation
from anomalib.models.image import Stfpm
import coreset
import numpy as np
from PIL import Image
import safetensors.torch
import tifffile
import timm
import torch
from torch.nn import functional
import tqdm

MODELS = {
  "patchcore": Patchcore,
  "padim": Padim,
  "stfpm": Stfpm,
  "reverse_distillation": ReverseDistillation,
}
EPOCHS = {"stfpm": 100, "reverse_distillation": 200}  # anomalib's examples; the papers
TRAIN_BATCH = 32  # anomalib's default
BATCH = 8  # as this package is measured
PATCHES = 32 * 32  # of an image, to PatchCore


class Clock:
  """Seconds since it was made: of the wall, and of all threads' work."""

  def __init__(self):
    self.wall, self.work = time.perf_counter(), time.process_time()

  def read(self) -> dict[str, float]:
    wall, work = time.perf_counter() - self.wall, time.process_time() - self.work
    return {"wall_s": round(wall, 2), "cpu_s": round(work, 2)}


def build(name: str, weights: pathlib.Path) -> torch.nn.Module:
  """The Lightning module, its encoder filled from the file."""
  create = timm.create_model

  def offline(*args, **settings):
    return create(*args, **settings | {"pretrained": False})

  backbone = {} if name in ("padim", "stfpm") else {"backbone": "resnet18"}
  with mock.patch.object(timm, "create_model", offline):
    detector = MODELS[name](evaluator=False, visualizer=False, **backbone)
  fill(encoder(detector), weights)
  return detector


def encoder(detector: torch.nn.Module) -> torch.nn.Module:
  """The frozen feature extractor of any of the four."""
  model = detector.model
  names = ("feature_extractor", "teacher_model", "encoder")
  return next(getattr(model, name) for name in names if hasattr(model, name))


def fill(extractor: torch.nn.Module, weights: pathlib.Path) -> None:
  """Loads the file; every tensor of the network is in the file, and the other way."""
  network = extractor.feature_extractor
  tensors = safetensors.torch.load_file(weights)
  wanted = {key for key in network.state_dict() if "num_batches_tracked" not in key}
  if wanted != set(tensors):
    alone = sorted(wanted ^ set(tensors))
    raise ValueError(f"{weights} is no ResNet-18 up to layer3: it differs in {alone}.")
  network.load_state_dict(tensors, strict=False)
  state = network.state_dict()
  for key, tensor in tensors.items():
    assert torch.equal(state[key], tensor), key


def read(detector: torch.nn.Module, paths: list[pathlib.Path]) -> torch.Tensor:
  """The images as the detector's pre-processor gives them: n x 3 x 256 x 256."""
  images = []
  for path in tqdm.tqdm(paths, "Reading", mininterval=5):
    pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 255
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1)
    images.append(detector.pre_processor.transform(channels_first[None]))
  return torch.cat(images)


def find(folder: pathlib.Path) -> list[pathlib.Path]:
  """The images of kinds' folders, in order."""
  paths = sorted(path for path in folder.glob("*/*") if path.is_file())
  if not paths:
    raise FileNotFoundError(f"{folder} has no KIND/IMAGE: see --data and --category.")
  return paths


def train(detector: torch.nn.Module, images: torch.Tensor, epochs: int) -> list[float]:
  """The loss of each epoch; none of those that learn nothing by gradients."""
  if not epochs:
    detector.train()
    for part in images.split(TRAIN_BATCH):
      detector.model(part)
    detector.fit()
    return []
  optimizer, losses = detector.configure_optimizers(), []
  for _ in tqdm.tqdm(range(epochs), "Epochs", mininterval=5):
    detector.train()
    total = 0.0
    for rows in torch.randperm(len(images)).split(TRAIN_BATCH):
      loss = detector.loss(*detector.model(images[rows]))
      optimizer.zero_grad()
      loss.backward()
      optimizer.step()
      total += loss.item() * len(rows) / len(images)
    losses.append(total)
  return losses


def milliseconds(model: torch.nn.Module, images: torch.Tensor) -> float:
  """CPU milliseconds an image, from the prepared image on; the median of batches."""
  spent = []
  for part in images[: 4 * BATCH].split(BATCH):
    start = time.process_time()
    model(part)
    spent.append(1000 * (time.process_time() - start) / len(part))
  return round(float(np.median(spent[1:])), 1)


def predict(
  detector: torch.nn.Module, images: torch.Tensor, paths: list[pathlib.Path], out
) -> list[dict[str, str | float]]:
  """Writes the maps; a row of id and score for each image."""
  rows = []
  for part, names in zip(
    images.split(BATCH), torch.arange(len(paths)).split(BATCH), strict=True
  ):
    output = detector.model(part)
    for index, score, values in zip(
      names, output.pred_score.flatten(), output.anomaly_map, strict=True
    ):
      path = paths[index]
      category, split, kind = path.parts[-4:-1]
      with Image.open(path) as image:
        size = image.height, image.width
      full = functional.interpolate(values[None], size=size, mode="bilinear")
      name = f"{category}/{split}/{kind}/{path.stem}"
      target = out / f"{name}.tiff"
      target.parent.mkdir(parents=True, exist_ok=True)
      tifffile.imwrite(target, full[0, 0].numpy(), compression="zlib")
      rows.append({"id": name, "score": float(score)})
  return rows


def run(flags: argparse.Namespace) -> dict[str, object]:
  """Trains and scores; what it took."""
  torch.manual_seed(flags.seed)
  np.random.seed(flags.seed)  # of the coreset's projection
  clock = Clock()
  detector = build(flags.model, flags.weights)
  normal = read(detector, find(flags.data / flags.category / "train"))
  theirs = KCenterGreedy.select_coreset_idxs
  choose = coreset.choose_lazily if flags.coreset == "lazy" else theirs
  with mock.patch.object(KCenterGreedy, "select_coreset_idxs", choose):
    losses = train(detector, normal, flags.epochs)
  facts = {"model": flags.model, "category": flags.category, "normal": len(normal)}
  facts |= {"epochs": flags.epochs, "losses": losses, "train": clock.read()}
  detector.eval()
  paths = find(flags.data / flags.category / "test")
  images = read(detector, paths)
  out = flags.out / flags.model
  with torch.no_grad():
    rows = predict(detector, images, paths, out)
    facts["cpu_ms"] = milliseconds(detector.model, images)
    facts["encoder_cpu_ms"] = milliseconds(encoder(detector), images)
    if flags.model == "patchcore":
      facts["patches"] = len(detector.model.memory_bank)
      shape = len(normal) * PATCHES, detector.model.memory_bank.shape[1]
      facts["coreset_cpu_s"] = coreset.seconds(shape, detector.coreset_sampling_ratio)
  with (out / f"{flags.category}.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, ("id", "score"))
    writer.writeheader()
    writer.writerows(rows)
  return facts | {"threads": torch.get_num_threads(), "all": clock.read()}


def main() -> None:
  """Writes one detector's maps, scores and seconds for one category."""
  parser = argparse.ArgumentParser(description=main.__doc__)
  parser.add_argument("--model", choices=MODELS, required=True)
  for name in ("data", "weights", "out"):
    parser.add_argument(f"--{name}", type=pathlib.Path, required=True)
  parser.add_argument("--category", required=True)
  parser.add_argument("--epochs", type=int, help=f"default: {EPOCHS}")
  parser.add_argument("--coreset", choices=("lazy", "theirs"), default="lazy")
  parser.add_argument("--seed", type=int, default=0)
  flags = parser.parse_args()
  default = EPOCHS.get(flags.model, 0)
  flags.epochs = default if flags.epochs is None else flags.epochs
  if bool(flags.epochs) != bool(default):
    parser.error(f"--epochs={flags.epochs} does not fit {flags.model}")
  facts = run(flags)
  text = json.dumps(facts, indent=1)
  (flags.out / flags.model / f"{flags.category}.json").write_text(text)
  print(text)


if __name__ == "__main__":
  main()
