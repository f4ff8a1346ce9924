"""Ground truth at the image's own size: one channel per defect, never merged."""

from collections.abc import Sequence
import json
import math
import pathlib
from typing import NamedTuple

from absl import logging
from jaxtyping import Bool, Int, Shaped
import numpy as np
from scipy import ndimage

from nps_jax.data import encoded
from nps_jax.data import levels
from nps_jax.data import listing
from nps_jax.data import records

KEYS = ("defect_name", "pixel_value", "saturation_threshold", "relative_saturation")
EIGHT_CONNECTED = np.ones((3, 3), bool)


class Truth(NamedTuple):
  """What is wrong in one image; a good image has no channels."""

  channels: tuple[Int[np.ndarray, " _"], ...]  # the pixels of each, as flat indices
  saturation: Int[np.ndarray, " c"]  # pixels that suffice, 1..the channel's area
  names: tuple[str, ...]  # each channel's defect

  def mask(self, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """What any channel covers of an image of this height and width."""
    covered = np.zeros(size, bool)
    for channel in self.channels:
      covered.flat[channel] = True
    return covered


def read(
  record: records.Record, defects: Sequence[records.Defect], size: tuple[int, int]
) -> Truth:
  """The ground-truth channels of a test image.

  With defects (MVTec LOCO AD) each mask file is a channel, whose pixel value selects
  its defect. Without (MVTec AD) each 8-connected region of the masks together is a
  channel, saturated by its whole area and named after the test folder.

  Args:
    size: height and width that the masks must have.

  Raises:
    ValueError: an anomalous image without masks; a mask that cannot be read, has
      another size, is empty, or whose values do not select one defect.
  """
  if record.kind != records.GOOD and not record.masks:
    raise ValueError(
      f"{record.id} is anomalous but has no ground-truth mask, so its pixels cannot be "
      "evaluated. Add its masks, or remove the image from the test split."
    )
  names = [name_of(record, at) for at in range(len(record.masks))]
  values = [
    levels.read(mask, name, size)
    for mask, name in zip(record.masks, names, strict=True)
  ]
  if not defects:
    marked = [levels.marked(*each) for each in zip(values, names, strict=True)]
    for each, name in zip(marked, names, strict=True):
      _check_some(each, name)
    channels = _regions(np.any(marked, axis=0)) if marked else ()
    areas = np.array([len(channel) for channel in channels], np.int64)
    return Truth(channels, areas, names=(record.kind,) * len(channels))
  shown = [_select(*each, defects) for each in zip(values, names, strict=True)]
  channels = tuple(np.flatnonzero(each) for each in values)
  saturation = [
    _saturation(defect, len(channel))
    for defect, channel in zip(shown, channels, strict=True)
  ]
  return Truth(
    channels, np.array(saturation, np.int64), tuple(defect.name for defect in shown)
  )


def check(
  source: encoded.Encoded,
  name: str,
  defects: Sequence[records.Defect],
  size: tuple[int, int],
) -> Bool[np.ndarray, "h w"]:
  """Makes sure that `read` can use a mask, and returns what it marks.

  Args:
    name: opens the messages.

  Raises:
    ValueError: it cannot be used, as `read` says.
  """
  values = levels.read(source, name, size)
  if defects:
    _select(values, name, defects)
    return values != 0
  marked = levels.marked(values, name)
  _check_some(marked, name)
  return marked


def tell_wide(wide: Sequence[str], inverted: Sequence[str], count: int) -> None:
  """Warns of masks that mark most of their image.

  Args:
    wide: their names.
    inverted: the names of those that mark all corners too.
    count: of all masks.

  Raises:
    ValueError: most masks look inverted.
  """
  if 2 * len(inverted) > count:
    raise ValueError(
      f"{len(inverted)} of {count} masks mark most of their image and all its corners, "
      f"and look inverted: {listing.some(inverted)}. Anomalies must be the brighter "
      "level. Invert the masks."
    )
  if wide:
    logging.warning(
      "%d of %d masks mark more than half of their image: %s. Is that what is "
      "anomalous, and not its opposite?",
      *(len(wide), count, listing.some(wide)),
    )


def name_of(record: records.Record, at: int) -> str:
  """What messages call one of a record's masks."""
  return encoded.name(record.masks[at], f"Mask {at} of {record.id}")


def read_defects(path: pathlib.Path) -> tuple[records.Defect, ...]:
  """The entries of a defects_config.json, in its order.

  Names may repeat (their images are then reported together); pixel values may not.

  Raises:
    ValueError: the file is missing, or not a list of valid entries.
  """
  try:
    entries = json.loads(path.read_text("utf-8"))
  except OSError as error:
    raise ValueError(
      f"{path} cannot be read ({error.strerror}). The MVTec LOCO AD layout has one "
      "defects_config.json in each category's folder."
    ) from error
  except ValueError as error:
    raise ValueError(f"{path} is not valid JSON: {error}") from error
  if not isinstance(entries, list) or not entries:
    raise ValueError(f"{path} must hold a list of defects; found {entries!r:.60}.")
  defects = tuple(
    _defect(entry, f"{path}, entry {i}") for i, entry in enumerate(entries)
  )
  values = [defect.pixel_value for defect in defects]
  repeated = sorted({value for value in values if values.count(value) > 1})
  if repeated:
    raise ValueError(f"{path} gives pixel_value {repeated} to more than one defect.")
  return defects


def _defect(entry: object, where: str) -> records.Defect:
  """One checked entry; `where` opens the error messages."""
  if not isinstance(entry, dict) or set(KEYS) - set(entry):
    missing = sorted(set(KEYS) - set(entry)) if isinstance(entry, dict) else entry
    raise ValueError(f"{where} lacks keys: {missing!r:.80}; needed are {KEYS}.")
  name, value, threshold, relative = (entry[key] for key in KEYS)
  if not isinstance(name, str) or not name:
    raise ValueError(f"{where}: defect_name is {name!r}; expected a text.")
  if type(value) is not int or not 1 <= value <= 255:
    raise ValueError(f"{where}: pixel_value is {value!r}; expected 1 to 255.")
  if type(relative) is not bool:
    raise ValueError(f"{where}: relative_saturation is {relative!r}; expected a bool.")
  if type(threshold) not in (int, float) or not 0 < threshold < math.inf:
    raise ValueError(
      f"{where}: saturation_threshold is {threshold!r}; expected a number above 0."
    )
  if relative and threshold > 1:
    raise ValueError(
      f"{where}: saturation_threshold is {threshold}; a relative one is at most 1."
    )
  if not relative and threshold != int(threshold):
    raise ValueError(
      f"{where}: saturation_threshold is {threshold}; an absolute one counts pixels."
    )
  return records.Defect(
    name=name,
    pixel_value=value,
    saturation_threshold=float(threshold),
    relative_saturation=relative,
  )


def _check_some(marked: Bool[np.ndarray, "h w"], name: str) -> None:
  if not marked.any():
    raise ValueError(f"{name} is empty: a mask marks at least one pixel.")


def _select(
  mask: Shaped[np.ndarray, "h w"],
  name: str,
  defects: Sequence[records.Defect],
) -> records.Defect:
  """The defect that the mask's one nonzero value stands for."""
  _check_some(mask != 0, name)
  value = int(mask.max())
  if np.count_nonzero(mask) != np.count_nonzero(mask == value):
    values = np.unique(mask[mask != 0]).tolist()
    raise ValueError(
      f"{name} holds the values {values}; a mask has one nonzero value, which selects "
      "its defect."
    )
  for defect in defects:
    if defect.pixel_value == value:
      return defect
  listed = sorted(defect.pixel_value for defect in defects)
  raise ValueError(
    f"{name} holds the value {value}, which defects_config.json does not list. It "
    f"lists {listed}."
  )


def _saturation(defect: records.Defect, area: int) -> int:
  """How many of the area's pixels count as finding the whole defect."""
  if not defect.relative_saturation:
    return min(int(defect.saturation_threshold), area)
  # The official floor gives 0 for a few-pixel area, where sPRO is undefined.
  return max(int(defect.saturation_threshold * area), 1)


def _regions(mask: Bool[np.ndarray, "h w"]) -> tuple[Int[np.ndarray, " _"], ...]:
  """The pixels of each 8-connected region, as flat indices."""
  labels, count = ndimage.label(mask, EIGHT_CONNECTED)
  pixels = np.flatnonzero(labels)
  own = labels.flat[pixels]
  order = np.argsort(own, kind="stable")
  starts = np.searchsorted(own[order], np.arange(2, count + 1))
  return tuple(np.split(pixels[order], starts)) if count else ()
