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
  subfolders = listing.folders(folder / "ground_truth")
  kinds = [kind for kind in subfolders if kind.name != records.GOOD]
  image_folders = [folder for kind in kinds for folder in listing.folders(kind)]
  if any(listing.files(folder) for folder in image_folders):
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
  kinds = {*files, *(kind.name for kind in listing.folders(truth))} - {records.GOOD}
  masks, missing, stray = {}, [], []
  for kind in sorted(kinds):
    images = files.get(kind, [])
    by_stem, strange = _masks(truth / kind, layout)
    stems = collections.Counter(image.stem for image in images)
    shared = [stem for stem, count in stems.items() if count > 1]
    if shared:
      raise ValueError(
        f"{folder}/test/{kind} has several images named {listing.some(shared)}, which "
        "would share a mask. Rename all but one of each, and their masks."
      )
    for image in images:
      masks[image] = tuple(by_stem.get(image.stem, ()))
    missing += [image for image in images if not masks[image]]
    stray += strange + [truth / kind / stem for stem in by_stem if stem not in stems]
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
  return masks


def _masks(
  place: pathlib.Path, layout: str
) -> tuple[dict[str, list[pathlib.Path]], list[pathlib.Path]]:
  """Mask files by their image's stem, and files that are not where masks belong."""
  files = [file for file in listing.files(place) if listing.is_image(file)]
  if layout == "loco":
    folders = listing.folders(place)
    return {folder.name: listing.images(folder) for folder in folders}, files
  by_stem = collections.defaultdict(list)
  for file in files:
    if file.stem.endswith("_mask"):
      by_stem[file.stem.removesuffix("_mask")].append(file)
  strange = [file for file in files if not file.stem.endswith("_mask")]
  return dict(by_stem), strange
