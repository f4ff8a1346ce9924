"""Makes the cases in this folder: python tests/golden/golden_cases.py.

Each case is a small data set with anomaly maps, and expected.json: the official metrics
by brute force, in float64, threshold by threshold, from the files and the published
definitions alone. Nothing of nps_jax is used here. Made with NumPy 2.4, Pillow 13.
"""

import json
import pathlib

import numpy as np
from PIL import Image
from scipy import ndimage
import tifffile

HERE = pathlib.Path(__file__).parent
SIZE = (20, 26)
LIMITS = {"loco": (0.01, 0.05, 0.1, 0.3, 1.0), "mvtec_ad": (0.3, 0.05)}
DEFECTS = [
  {"defect_name": "missing", "pixel_value": 255, "relative_saturation": True},
  {"defect_name": "extra", "pixel_value": 254, "relative_saturation": False},
  {"defect_name": "dent", "pixel_value": 253, "relative_saturation": True},
]
THRESHOLDS = {"missing": 0.3, "extra": 12, "dent": 1.0}
SHOWN = {  # channels by kind; each tuple is one image
  "good": [(), (), (), (), ()],
  "logical_anomalies": [(255,), (255, 254), (254,), (254, 254)],
  "structural_anomalies": [(253,), (253, 254), (253, 253)],
}
CASES = {  # layout, how the maps are rounded, their type
  "plain_loco": ("loco", lambda m: m, "<f4"),
  "ties_loco": ("loco", lambda m: np.maximum(np.round(2 * m) / 2, 0), "<f8"),
  "shifted_loco": ("loco", lambda m: 1000 * m - 5e6, ">f4"),
  "coarse_mvtec_ad": ("mvtec_ad", lambda m: np.round(4 * m) / 4, "<f2"),
}


def write_case(folder, layout, rounding, dtype, rng):
  """The data set and the maps."""
  base, maps = folder / "dataset" / "part", folder / "maps" / "part"
  for kind, images in SHOWN.items():
    for index, values in enumerate(images):
      score = rng.normal(size=SIZE)
      masks = []
      for value in values:
        mask = np.zeros(SIZE, np.uint8)
        top, left = rng.integers(0, 12, 2)
        mask[top : top + rng.integers(2, 8), left : left + rng.integers(2, 9)] = value
        score[mask > 0] += rng.uniform(0.2, 2)
        masks.append(mask)
      name = f"{kind}/{index:03d}"
      if layout == "mvtec_ad" and masks:
        merged = 255 * np.any([mask > 0 for mask in masks], axis=0).astype(np.uint8)
        save(base / "ground_truth" / f"{name}_mask.png", merged)
      else:
        for channel, mask in enumerate(masks):
          save(base / "ground_truth" / name / f"{channel:03d}.png", mask)
      save(base / "test" / f"{name}.png", np.zeros(SIZE, np.uint8))
      path = maps / "test" / f"{name}.tiff"
      path.parent.mkdir(parents=True, exist_ok=True)
      tifffile.imwrite(path, rounding(score).astype(dtype))
  if layout == "loco":
    entries = [
      each | {"saturation_threshold": THRESHOLDS[each["defect_name"]]}
      for each in DEFECTS
    ]
    (base / "defects_config.json").write_text(json.dumps(entries, indent=1) + "\n")


def save(path, pixels):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(pixels).save(path)


def channels(folder, layout, kind, name):
  """An image's ground-truth channels, each with its name and saturation area."""
  base = folder / "dataset" / "part" / "ground_truth" / kind
  if layout == "mvtec_ad":
    path = base / f"{name}_mask.png"
    if not path.exists():
      return []
    labels, count = ndimage.label(np.asarray(Image.open(path)), np.ones((3, 3)))
    found = [labels == label for label in range(1, count + 1)]
    return [(kind, mask, int(mask.sum())) for mask in found]
  found = []
  for path in sorted((base / name).glob("*.png")):
    mask = np.asarray(Image.open(path))
    (defect,) = (d for d in DEFECTS if d["pixel_value"] == mask.max())
    threshold, area = THRESHOLDS[defect["defect_name"]], int((mask > 0).sum())
    relative = defect["relative_saturation"]
    full = int(threshold * area) if relative else min(threshold, area)
    found.append((defect["defect_name"], mask > 0, full))
  return found


def read_images(folder, layout):
  """Each test image: kind, float64 map, channels."""
  images = []
  for path in sorted((folder / "maps" / "part" / "test").rglob("*.tiff")):
    values = np.asarray(tifffile.imread(path), np.float64)
    kind = path.parent.name
    images.append((kind, values, channels(folder, layout, kind, path.stem)))
  return images


def area(images, limit, names=None):
  """The trapezoid area under the mean sPRO of the named channels, by threshold."""
  normal, inside = [], []
  for _, values, held in images:
    covered = np.any([mask for _, mask, _ in held], axis=0) if held else False
    normal.append(values[~np.broadcast_to(covered, SIZE)])
    wanted = [each for each in held if names is None or each[0] in names]
    inside += [(values[mask], full) for _, mask, full in wanted]
  normal = np.concatenate(normal)
  cuts = np.unique(np.concatenate([values.ravel() for _, values, _ in images]))[::-1]
  total, last = 0.0, (0.0, 0.0)
  for cut in [*cuts, -np.inf]:
    x = np.mean(normal > cut)
    y = np.mean([min(np.sum(found > cut) / full, 1) for found, full in inside])
    if x > last[0]:
      end = min(x, limit)
      slope = (y - last[1]) / (x - last[0])
      total += (end - last[0]) * (last[1] + slope * (end - last[0]) / 2)
    last = (x, y)
    if x >= limit:
      break
  return total / limit


def auroc(good, bad):
  return float(np.mean([(b > g) + 0.5 * (b == g) for b in bad for g in good]))


def image_auroc(images, wanted):
  good = [values.max() for kind, values, _ in images if kind == "good"]
  bad = [values.max() for kind, values, held in images if wanted(kind, held)]
  return auroc(good, bad)


def pixels(images):
  """Pixel AUROC and average precision: defective pixels against all others."""
  covered = [
    np.any([m for _, m, _ in held], axis=0) if held else np.zeros(SIZE, bool)
    for _, _, held in images
  ]
  bad = np.concatenate([v[c] for (_, v, _), c in zip(images, covered, strict=True)])
  good = np.concatenate([v[~c] for (_, v, _), c in zip(images, covered, strict=True)])
  precision = [np.sum(bad >= b) / (np.sum(bad >= b) + np.sum(good >= b)) for b in bad]
  rank = np.mean([np.mean(b > good) + 0.5 * np.mean(b == good) for b in bad])
  return float(rank), float(np.mean(precision))


def expected(folder, layout):
  """Every figure of the case."""
  images, limits = read_images(folder, layout), LIMITS[layout]
  found = {}
  if layout == "loco":
    for name in ("logical", "structural"):
      kind = f"{name}_anomalies"
      part = [each for each in images if each[0] in ("good", kind)]
      found[f"image_auroc.{name}"] = image_auroc(images, lambda k, _, w=kind: k == w)
      for limit in limits:
        found[f"au_spro.{name}.{limit}"] = area(part, limit)
    for tail in ("image_auroc", *(f"au_spro.{limit}" for limit in limits)):
      first, _, rest = tail.partition(".")
      pair = [
        f"{first}.{name}{rest and '.' + rest}" for name in ("logical", "structural")
      ]
      found[f"{first}.mean{rest and '.' + rest}"] = sum(found[k] for k in pair) / 2
    names = [each["defect_name"] for each in DEFECTS]
  else:
    for limit in limits:
      found[f"au_pro.{limit}"] = area(images, limit)
    names = sorted({kind for kind, _, _ in images} - {"good"})
    for name in names:
      found[f"region_by_kind.{name}.0.3"] = area(images, 0.3, {name})
  for name in names:
    found[f"image_auroc.by_kind.{name}"] = image_auroc(
      images, lambda _, held, n=name: n in {each for each, _, _ in held}
    )
  found["image_auroc.pooled"] = image_auroc(images, lambda kind, _: kind != "good")
  found["pixel_auroc"], found["pixel_ap"] = pixels(images)
  return found


def main():
  for seed, (name, (layout, rounding, dtype)) in enumerate(CASES.items()):
    folder = HERE / name
    write_case(folder, layout, rounding, dtype, np.random.default_rng(seed))
    text = json.dumps(expected(folder, layout), indent=1)
    (folder / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
  main()
