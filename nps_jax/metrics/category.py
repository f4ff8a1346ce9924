"""Everything that is measured on one category's test images."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from nps_jax.data import masks
from nps_jax.data import records
from nps_jax.metrics import auroc
from nps_jax.metrics import spro

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)  # of AU-sPRO; the field quotes 0.05
PRO_LIMITS = (0.3, 0.05)  # of AU-PRO; the field quotes 0.3


class _Image(NamedTuple):
  kind: str
  score: float
  defects: tuple[str, ...]  # one name per channel


def measure(
  dataset: records.Dataset,
  scored: Iterable[tuple[records.Record, np.ndarray, float]],
  limits: Sequence[float] = LIMITS,
) -> dict:
  """The category's image and pixel metrics, ready for JSON; None where undefined.

  "logical" is good against logical images, "structural" likewise, "mean" the average
  of the two, "pooled" good against all anomalous images. "by_kind" goes by defect in
  the LOCO layout, else by test folder. LOCO has au_spro, MVTec AD has au_pro, and the
  plain layout image scores only: its masks are not read.

  Args:
    scored: each test record once, in any order, with its anomaly map [h w] at the
      image's own size and its image score. Maps are taken one at a time.
    limits: false positive rates that AU-sPRO is integrated to.

  Raises:
    ValueError: a map or score is not finite; a map's size differs from its masks'; a
      test record has no score, or two; a scored record is not in the test split; a
      mask cannot be read.
  """
  images, groups = _gather(dataset, scored)
  good, everything = groups[records.GOOD], list(groups.values())
  # First what needs every group, so that all are sorted at once.
  pixel_auroc = spro.pixel_auroc(everything) if _has_both(everything) else None
  au_spro = au_pro = None
  if dataset.layout == "loco":
    logical = _area([good, groups[records.LOGICAL]], limits)
    structural = _area([good, groups[records.STRUCTURAL]], limits)
    mean = None
    if logical and structural:
      mean = {limit: (logical[limit] + structural[limit]) / 2 for limit in logical}
    au_spro = {"logical": logical, "structural": structural, "mean": mean}
  else:
    au_pro = _area(everything, PRO_LIMITS)
  return {
    "category": dataset.category,
    "image_auroc": _image_auroc(dataset, images),
    "au_spro": au_spro,
    "au_pro": au_pro,
    "pixel_auroc": pixel_auroc,
    "n_test": len(images),
  }


def _gather(
  dataset: records.Dataset,
  scored: Iterable[tuple[records.Record, np.ndarray, float]],
) -> tuple[list[_Image], Mapping[str, spro.Group]]:
  """Each test image's score, and the pixels by test folder (none if plain)."""
  missing = {record.id: record for record in dataset.test}
  known = frozenset(missing)
  images, groups = [], collections.defaultdict(spro.Group)
  for given, values, score in scored:
    record = missing.pop(given.id, None)
    if record is None:
      problem = "scored twice" if given.id in known else "not in the test split"
      raise ValueError(f"{given.id} is {problem} of {dataset.category}.")
    if values.ndim != 2:
      raise ValueError(
        f"{record.id}: its anomaly map has shape {values.shape}; expected (height, "
        "width)."
      )
    if not np.isfinite(score) or not np.isfinite(values).all():
      raise ValueError(
        f"{record.id}: its anomaly map or image score holds NaN or infinity."
      )
    names = ()
    if dataset.layout != "plain":
      truth = masks.read(record, dataset.defects, values.shape)
      groups[record.kind].add(values, truth.channels, truth.saturation)
      names = truth.names
    images.append(_Image(record.kind, float(score), names))
  if missing:
    raise ValueError(
      f"{len(missing)} of the {len(known)} test images of {dataset.category} have no "
      f"score, the first being {next(iter(missing))}."
    )
  return images, groups


def _image_auroc(dataset: records.Dataset, images: Sequence[_Image]) -> dict:
  """Image AUROCs of good images against the anomalous ones, and against parts."""
  good = np.array([image.score for image in images if image.kind == records.GOOD])

  def against(wanted: Callable[[_Image], bool]) -> float | None:
    bad = [image.score for image in images if wanted(image)]
    return auroc.auroc(good, np.array(bad)) if good.size and bad else None

  logical = structural = mean = None
  if dataset.layout == "loco":
    logical = against(lambda image: image.kind == records.LOGICAL)
    structural = against(lambda image: image.kind == records.STRUCTURAL)
    if logical is not None and structural is not None:
      mean = (logical + structural) / 2
    names = dict.fromkeys(defect.name for defect in dataset.defects)
    by_kind = {
      name: against(lambda image, n=name: n in image.defects) for name in names
    }
  else:
    kinds = sorted({image.kind for image in images} - {records.GOOD})
    by_kind = {kind: against(lambda image, k=kind: image.kind == k) for kind in kinds}
  return {
    "logical": logical,
    "structural": structural,
    "mean": mean,
    "pooled": against(lambda image: image.kind != records.GOOD),
    "by_kind": by_kind,
  }


def _area(
  groups: Sequence[spro.Group], limits: Sequence[float]
) -> dict[str, float] | None:
  """AU-sPRO by limit."""
  if not _has_both(groups):
    return None
  areas = spro.au_spro(groups, limits)
  return {str(float(limit)): area for limit, area in areas.items()}


def _has_both(groups: Sequence[spro.Group]) -> bool:
  """Whether there are defective and normal pixels, so that areas are defined."""
  some = any(group.channels for group in groups)
  return some and any(group.normal_count for group in groups)
