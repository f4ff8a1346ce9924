"""The forms that ground truth takes, told apart, and matched with the test images."""

import collections
from collections.abc import Set
import pathlib

from nps_jax.data import listing
from nps_jax.data import naming


def find_layout(folder: pathlib.Path) -> str:
  """The layout, "loco", "mvtec_ad" or "plain", by the form of the ground truth.

  Raises:
    ValueError: there is ground truth in neither of the two forms.
  """
  if (folder / "defects_config.json").exists():
    return "loco"
  truth, test = naming.find_truth(folder), naming.find_split(folder, "test")
  kinds = [kind for kind in listing.folders(truth) if not naming.is_normal(kind.name)]
  files = [file for kind in kinds for file in listing.walk(kind)]
  images = (
    {} if test is None else {k.name: listing.images(k) for k in naming.kinds(test)}
  )
  keys = {f"{kind}/{image.stem}" for kind in images for image in images[kind]}
  named = [f"{file.parent.name}/{file.stem}" in keys for file in files]
  if any(file.stem.endswith(naming.MASK) for file in files) or any(named):
    return "mvtec_ad"
  if any(file.parent not in kinds for file in files):
    return "loco"
  if not files and any(naming.split_masks(paths)[1] for paths in images.values()):
    return "mvtec_ad"  # with masks beside the images
  if files:
    raise ValueError(
      f"{truth} is in no known layout; found {listing.some(files)}. MVTec AD has "
      "<kind>/<image>_mask.png, BTAD and VisA <kind>/<image>.png, LOCO "
      "<kind>/<image>/<number>.png. "
      'Rename the files, or set config.data.layout to "plain", which needs no masks.'
    )
  return "plain"


def match(
  folder: pathlib.Path,
  test: pathlib.Path,
  layout: str,
  files: dict[str, list[pathlib.Path]],
  beside: dict[pathlib.Path, list[pathlib.Path]],
) -> dict[pathlib.Path, tuple[pathlib.Path, ...]]:
  """Each anomalous image's masks.

  Args:
    test: the folder of the kinds' folders.
    files: the test images by kind.
    beside: masks that lie beside their images.

  Raises:
    ValueError: images without a mask, or masks without an image; lists and counts them.
  """
  truth = naming.find_truth(folder)
  names = {*files, *(kind.name for kind in listing.folders(truth))}
  masks, missing, stray = {}, [], []
  for kind in sorted(name for name in names if not naming.is_normal(name)):
    images = files.get(kind, [])
    keys = {image: naming.key(image, test / kind) for image in images}
    by_key, strange = _masks(truth / kind, layout, set(keys.values()))
    shared = [
      key for key, count in collections.Counter(keys.values()).items() if count > 1
    ]
    if shared:
      raise ValueError(
        f"{test / kind} has several images named {listing.some(shared)}, which "
        "would share a mask. Rename all but one of each, and their masks."
      )
    for image in images:
      masks[image] = (*by_key.get(keys[image], ()), *beside.get(image, ()))
    missing += [image for image in images if not masks[image]]
    stray += strange
    stray += [truth / kind / key for key in by_key if key not in keys.values()]
  form = "<image>/<number>.png" if layout == "loco" else "<image>_mask.png"
  if missing:
    raise ValueError(
      f"{len(missing)} anomalous images have no mask in {truth}/<kind>/{form}: "
      f"{listing.some(missing)}. Add their masks, remove the images, or set "
      'config.data.layout to "plain", which does without masks.'
    )
  if stray:
    raise ValueError(
      f"{len(stray)} masks in {truth} have no image in {test}: "
      f"{listing.some(stray)}. Expected <kind>/{form}. Add the images, or remove the "
      "masks."
    )
  return masks


def _masks(
  place: pathlib.Path, layout: str, images: Set[str]
) -> tuple[dict[str, list[pathlib.Path]], list[pathlib.Path]]:
  """Mask files by their image's key, and files that are not where masks belong.

  Args:
    images: the keys of the images that are there.
  """
  by_key = collections.defaultdict(list)
  files, strange = [file for file in listing.walk(place) if listing.is_image(file)], []
  suffixed = any(file.stem.endswith(naming.MASK) for file in files)
  for file in files:
    if layout == "loco" and file.parent != place:
      by_key[naming.key(file.parent / "x", place).rpartition("/")[0]].append(file)
    elif layout != "loco" and (file.stem.endswith(naming.MASK) or not suffixed):
      key = naming.key(file, place)
      by_key[key if key in images else key.removesuffix(naming.MASK)].append(file)
    else:
      strange.append(file)
  return dict(by_key), strange
