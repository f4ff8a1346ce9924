"""Everything that is measured on one category's test images."""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from absl import logging
from jaxtyping import Float
import numpy as np

from nps_jax.data import levels
from nps_jax.data import masks
from nps_jax.data import records
from nps_jax.metrics import auroc
from nps_jax.metrics import spro

LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)  # of AU-sPRO; the field quotes 0.05
PRO_LIMITS = (0.3, 0.05)  # of AU-PRO; the field quotes 0.3
RATES = tuple(  # false positives at the curves' points, which are dense near 0
  round(0.3 * (step / 40) ** 2, 6) for step in range(41)
)
CONFIDENCE = (0.025, 0.975)  # percentiles of the bootstrap that bound an interval


class _Image(NamedTuple):
  kind: str
  score: float
  defects: tuple[str, ...]  # one name per channel


class _Figure(NamedTuple):
  value: float
  samples: Float[np.ndarray, " r"]  # the same measure on bootstrap samples


def measure(
  dataset: records.Dataset,
  scored: Iterable[tuple[records.Record, np.ndarray, float]],
  limits: Sequence[float] | None = None,
  bootstrap: int = 0,
  seed: int = 0,
) -> dict:
  """The category's image and pixel metrics, ready for JSON; None where undefined.

  "logical" is good against logical images, "structural" likewise, "mean" the average
  of the two, "pooled" good against all anomalous images. "by_kind" goes by defect in
  the LOCO layout, else by test folder; an image with two defects counts for both, and
  a defect's region score is the mean over its own channels. LOCO has au_spro, MVTec AD
  has au_pro, and the plain layout image scores only: its masks are not read.
  "region_curves" has sPRO by subset, or PRO, at the false positive rates RATES.

  Args:
    scored: each test record once, in any order, with its anomaly map [h w] at the
      image's own size and its image score. Maps are taken one at a time.
    limits: false positive rates to integrate to; None: LIMITS for LOCO or PRO_LIMITS.
    bootstrap: samples for the 95 % intervals of image AUROCs ("image_auroc_95"), good
      and anomalous images drawn apart; 0: none.
    seed: of the bootstrap.

  Raises:
    ValueError: a map or score is not finite; a map's size differs from its masks'; a
      test record has no score, or two; a scored record is not in the test split; a
      mask cannot be read, or most look inverted; a limit is out of range.
  """
  images, groups = _gather(dataset, scored)
  figures = _image_auroc(dataset, images, bootstrap, seed)
  # First what needs every group, so that all are sorted at once.
  everything = list(groups.values())
  pixel_auroc = pixel_ap = None
  if _has_both(everything):
    pixel_auroc, pixel_ap = spro.pixel_ranking(everything)
  au_spro, au_pro, regions, curves = _regions(dataset.layout, images, groups, limits)
  kinds = figures["by_kind"]
  return {
    "category": dataset.category,
    "image_auroc": _leaves(figures, lambda figure: figure.value),
    "image_auroc_95": _leaves(figures, _interval) if bootstrap else None,
    "au_spro": au_spro,
    "au_pro": au_pro,
    "region_by_kind": {kind: regions.get(kind) for kind in kinds},
    "region_curves": curves,
    "pixel_auroc": pixel_auroc,
    "pixel_ap": pixel_ap,
    "n_test": len(images),
    "n_by_kind": {kind: sum(_shows(image, kind) for image in images) for kind in kinds},
  }


def _gather(
  dataset: records.Dataset,
  scored: Iterable[tuple[records.Record, np.ndarray, float]],
) -> tuple[list[_Image], Mapping[str, spro.Group]]:
  """Each test image's score, and the pixels by test folder (none if plain)."""
  missing = {record.id: record for record in dataset.test}
  ids = frozenset(missing)
  images, groups = [], collections.defaultdict(spro.Group)
  wide, inverted, shown = [], [], 0
  for scored_record, values, score in scored:
    name = scored_record.id
    record = missing.pop(name, None)
    if record is None:
      problem = "scored twice" if name in ids else "not in the test split"
      raise ValueError(f"{name} is {problem} of {dataset.category}.")
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
      shown += bool(names)
      marked = truth.mask(values.shape)
      wide += [name] * levels.is_wide(marked)
      inverted += [name] * levels.looks_inverted(marked)
    images.append(_Image(kind=record.kind, score=float(score), defects=names))
  if missing:
    raise ValueError(
      f"{len(missing)} of the {len(ids)} test images of {dataset.category} have no "
      f"score, the first being {next(iter(missing))}."
    )
  masks.tell_wide(wide, inverted, shown)
  kinds = sorted({image.kind for image in images})
  if images and (records.GOOD not in kinds or len(kinds) == 1):
    logging.warning(
      "%s: AUROC needs normal and anomalous test images; there are only %s. Normal "
      "ones belong into test/good.",
      *(dataset.category, ", ".join(kinds)),
    )
  return images, groups


def _image_auroc(
  dataset: records.Dataset, images: Sequence[_Image], bootstrap: int, seed: int
) -> dict:
  """Image AUROCs of good images against the anomalous ones, and against parts."""
  good = np.array([image.score for image in images if image.kind == records.GOOD])
  rng = np.random.default_rng(seed)
  good_draws = rng.integers(0, max(good.size, 1), (bootstrap, good.size))

  def against(wanted: Callable[[_Image], bool]) -> _Figure | None:
    bad = np.array([image.score for image in images if wanted(image)])
    if not good.size or not bad.size:
      return None
    bad_draws = rng.integers(0, bad.size, (bootstrap, bad.size))
    samples = np.zeros(0)
    if bootstrap:
      samples = auroc.resampled(good, bad, good_draws, bad_draws)
    return _Figure(value=auroc.auroc(good, bad), samples=samples)

  logical = structural = mean = None
  if dataset.layout == "loco":
    logical = against(lambda image: image.kind == records.LOGICAL)
    structural = against(lambda image: image.kind == records.STRUCTURAL)
    if logical is not None and structural is not None:
      mean = _Figure(
        value=(logical.value + structural.value) / 2,
        samples=(logical.samples + structural.samples) / 2,
      )
    kinds = list(dict.fromkeys(defect.name for defect in dataset.defects))
  else:
    kinds = sorted({image.kind for image in images} - {records.GOOD})
  return {
    "logical": logical,
    "structural": structural,
    "mean": mean,
    "pooled": against(lambda image: image.kind != records.GOOD),
    "by_kind": {
      kind: against(lambda image, k=kind: _shows(image, k)) for kind in kinds
    },
  }


def _shows(image: _Image, kind: str) -> bool:
  """Whether the image has this defect, or lies in this folder."""
  return kind in image.defects or kind == image.kind


def _leaves(figures: Mapping, value_of: Callable[[_Figure], object]) -> dict:
  """The figures' tree with a value for each; None stays."""
  values = {}
  for name, figure in figures.items():
    if isinstance(figure, Mapping):
      values[name] = _leaves(figure, value_of)
    else:
      values[name] = None if figure is None else value_of(figure)
  return values


def _interval(figure: _Figure) -> list[float]:
  return np.quantile(figure.samples, CONFIDENCE).tolist()


def _regions(
  layout: str,
  images: Sequence[_Image],
  groups: Mapping[str, spro.Group],
  limits: Sequence[float] | None,
) -> tuple[dict | None, dict | None, dict, dict | None]:
  """AU-sPRO, which LOCO alone has; AU-PRO, which it has not; by kind; the curves."""
  if layout == "loco":
    au_spro, by_defect, curves = _loco_regions(images, groups, limits or LIMITS)
    return au_spro, None, by_defect, curves
  limits = limits or PRO_LIMITS
  names, areas, heights = _channels(images, groups, limits)
  curves = {"pro": heights.mean(axis=0).tolist()} if names else None
  return None, _mean(areas, limits), _by_name(names, areas, limits), curves


def _loco_regions(
  images: Sequence[_Image], groups: Mapping[str, spro.Group], limits: Sequence[float]
) -> tuple[dict, dict, dict | None]:
  """AU-sPRO of both subsets and their mean; by defect; each subset's curve."""
  by_subset, names, areas, curves = {}, [], [], {}
  for subset, kind in (
    ("logical", records.LOGICAL),
    ("structural", records.STRUCTURAL),
  ):
    parts = {records.GOOD: groups[records.GOOD], kind: groups[kind]}
    subset_names, subset_areas, heights = _channels(images, parts, limits)
    by_subset[subset] = _mean(subset_areas, limits)
    names += subset_names
    areas.append(subset_areas)
    if subset_names:
      curves[subset] = heights.mean(axis=0).tolist()
  if not {records.LOGICAL, records.STRUCTURAL} & {image.kind for image in images}:
    names, whole, heights = _channels(images, groups, limits)  # of other kinds: AutoVI
    curves = {"all": heights.mean(axis=0).tolist()} if names else None
    mean = _mean(whole, limits)
    return by_subset | {"mean": mean}, _by_name(names, whole, limits), curves
  mean = None
  if by_subset["logical"] and by_subset["structural"]:
    mean = {
      limit: (area + by_subset["structural"][limit]) / 2
      for limit, area in by_subset["logical"].items()
    }
  by_defect = _by_name(names, np.concatenate(areas), limits)
  return by_subset | {"mean": mean}, by_defect, curves or None


def _channels(
  images: Sequence[_Image], parts: Mapping[str, spro.Group], limits: Sequence[float]
) -> tuple[list[str], Float[np.ndarray, "c m"], Float[np.ndarray, "c r"]]:
  """Each channel's name, areas and curve; none where they are undefined."""
  if not _has_both(list(parts.values())):
    return [], np.zeros((0, len(limits))), np.zeros((0, len(RATES)))
  names = [
    name
    for kind in parts
    for image in images
    if image.kind == kind
    for name in image.defects
  ]
  return names, *spro.channel_curves(list(parts.values()), limits, RATES)


def _mean(
  areas: Float[np.ndarray, "c m"], limits: Sequence[float]
) -> dict[str, float] | None:
  """The mean over channels by limit."""
  if not len(areas):
    return None
  means = areas.mean(axis=0).tolist()
  return {str(float(limit)): area for limit, area in zip(limits, means, strict=True)}


def _by_name(
  names: Sequence[str], areas: Float[np.ndarray, "c m"], limits: Sequence[float]
) -> dict[str, dict[str, float]]:
  """The mean over the channels of each name."""
  labels = np.array(names)
  return {name: _mean(areas[labels == name], limits) for name in dict.fromkeys(names)}


def _has_both(groups: Sequence[spro.Group]) -> bool:
  """Whether there are defective and normal pixels, so that areas are defined."""
  any_defective = any(group.channels for group in groups)
  return any_defective and any(group.normal_count for group in groups)
