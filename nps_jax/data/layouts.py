"""The forms that ground truth takes, told apart, and matched with the test images."""

import collections
import pathlib

from nps_jax.data import listing
from nps_jax.data import records


def find_layout(folder: pathlib.Path) -> str:
  """The layout, "loco", "mvtec_ad" or "plain", by the form of the ground truth.

  Raises:
    ValueError: there is ground truth in neither of the two forms.
  """
  if (folder / "defects_config.json").exists():
    return "loco"
  held = listing.folders(folder / "ground_truth")
  kinds = [each for each in held if each.name != records.GOOD]
  if any(listing.files(each) for kind in kinds for each in listing.folders(kind)):
    return "loco"
  files = [file for kind in kinds for file in listing.files(kind)]
  if any(file.stem.endswith("_mask") for file in files):
    return "mvtec_ad"
  if files:
    raise ValueError(
      f"{folder}/ground_truth is in no known layout; found {listing.some(files)}. "
      "MVTec AD has <kind>/<image>_mask.png, LOCO has <kind>/<image>/<number>.png. "
      'Rename the files, or set config.data.layout to "plain", which needs no masks.'
    )
  return "plain"


def match(
  folder: pathlib.Path, layout: str, files: dict[str, list[pathlib.Path]]
) -> dict[pathlib.Path, tuple[pathlib.Path, ...]]:
  """Each anomalous image's masks.

  Args:
    files: the test images by kind.

  Raises:
    ValueError: images without a mask, or masks without an image; lists and counts them.
  """
  truth = folder / "ground_truth"
  kinds = {*files, *(each.name for each in listing.folders(truth))} - {records.GOOD}
  found, missing, stray = {}, [], []
  for kind in sorted(kinds):
    groups, left = _masks(truth / kind, layout)
    stems = collections.Counter(each.stem for each in files.get(kind, []))
    shared = [stem for stem, count in stems.items() if count > 1]
    if shared:
      raise ValueError(
        f"{folder}/test/{kind} has several images named {listing.some(shared)}, which "
        "would share a mask. Rename all but one of each, and their masks."
      )
    for each in files.get(kind, []):
      found[each] = tuple(groups.get(each.stem, ()))
    missing += [each for each in files.get(kind, []) if not found[each]]
    stray += left + [truth / kind / stem for stem in groups if stem not in stems]
  form = "<image>/<number>.png" if layout == "loco" else "<image>_mask.png"
  if missing:
    raise ValueError(
      f"{len(missing)} anomalous images have no mask in {truth}/<kind>/{form}: "
      f"{listing.some(missing)}. Add their masks, remove the images, or set "
      'config.data.layout to "plain", which does without masks.'
    )
  if stray:
    raise ValueError(
      f"{len(stray)} masks in {truth} have no image in {folder}/test: "
      f"{listing.some(stray)}. Expected <kind>/{form}. Add the images, or remove the "
      "masks."
    )
  return found


def _masks(
  place: pathlib.Path, layout: str
) -> tuple[dict[str, list[pathlib.Path]], list[pathlib.Path]]:
  """Mask files by their image's stem, and files that are not where masks belong."""
  files = [each for each in listing.files(place) if listing.is_image(each)]
  if layout == "loco":
    return {each.name: listing.images(each) for each in listing.folders(place)}, files
  groups = collections.defaultdict(list)
  for each in files:
    if each.stem.endswith("_mask"):
      groups[each.stem.removesuffix("_mask")].append(each)
  strange = [each for each in files if not each.stem.endswith("_mask")]
  return dict(groups), strange
