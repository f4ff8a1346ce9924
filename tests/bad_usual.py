"""Data sets as people have them, and what is told where no tree alone shows it."""

from typing import NamedTuple
import unicodedata

import bad_images
import bad_trees as trees
import numpy as np
from PIL import ExifTags
from PIL import Image

KINDS = ("logical_anomalies", "structural_anomalies")
NORMAL = [
  f"data/nuts/{split}/good/{at:03d}.png"
  for split, count in (("train", 4), ("validation", 2))
  for at in range(count)
]


def masked(pixels, place=f"{trees.TRUTH}/{{}}/000_mask.png"):
  """Masks as MVTec AD has them, all of the same pixels, in place of LOCO's."""
  return trees.both(
    trees.remove(trees.CONFIG),
    trees.remove(trees.TRUTH),
    *(trees.image(place.format(kind), pixels) for kind in KINDS),
  )


def turned(here):
  """A mask that lies on its side, with the tag that says so."""
  exif = Image.Exif()
  exif[ExifTags.Base.Orientation] = 6
  path = here / trees.MASK
  Image.fromarray(trees.mask().T.copy()).save(path, exif=exif)


def deep(*names, highest=4095):
  """16-bit grey of so high values at most."""
  pixels = np.linspace(0, highest, 12 * 16).astype(np.uint16).reshape(trees.SIZE)
  return trees.both(*(trees.image(name, pixels) for name in names))


def specks(here):
  """An image of thousands of defects, each a pixel."""
  pixels = np.zeros((280, 280), np.uint8)
  pixels[::4, ::4] = 255
  masked(trees.mask())(here)
  trees.image(f"{trees.TEST}/{KINDS[0]}/000.png", bad_images.noise(280, 280))(here)
  trees.image(f"{trees.TRUTH}/{KINDS[0]}/000_mask.png", pixels)(here)


def forms(here):
  """An image and its mask of one name, written with and without combined letters."""
  masked(trees.mask())(here)
  for place, form, end in (
    (trees.TEST, "NFD", ""),
    (trees.TRUTH, "NFC", "_mask"),
  ):
    name = unicodedata.normalize(form, "größe")
    folder = f"{place}/{KINDS[0]}"
    trees.move(f"{folder}/000{end}.png", f"{folder}/{name}{end}.png")(here)


OTHER = f"{trees.TEST}/good/000.png"
TRAIN = (
  trees.Case("masks of 0 and 1", masked(trees.mask(1)), trees.PASSED),
  trees.Case("1-bit masks", masked(trees.mask() > 0), trees.PASSED),
  trees.Case(
    "masks of one colour on black",
    masked(np.dstack([trees.mask(), 0 * trees.mask(), 0 * trees.mask()])),
    trees.PASSED,
  ),
  trees.Case(
    "masks that mark what is normal",
    masked(255 - trees.mask()),
    "2 of 2 masks mark most of their image and all its corners, and look inverted: ... "
    "Anomalies must be the brighter level. Invert the masks.",
  ),
  trees.Case("a mask turned by its EXIF", turned, trees.PASSED),
  trees.Case("a mask of thousands of specks", specks, trees.PASSED),
  trees.Case(
    "masks beside their images, as NAME_mask",
    masked(trees.mask(), f"{trees.TEST}/{{}}/000_mask.png"),
    trees.PASSED,
  ),
  trees.Case("12-bit grey in 16-bit files", deep(*NORMAL, OTHER), trees.PASSED),
  trees.Case(
    "a test image of more bits than the normal ones",
    trees.both(deep(*NORMAL), deep(OTHER, highest=5000)),
    "1 of the 11 image and mask files cannot be used:\n"
    f"HERE/{OTHER} cannot be read (its highest grey value is 5000, above the 4095 of "
    "the 12 bits that the training images have (config.data.bits)). "
    f"{trees.GONE}",
  ),
  trees.Case(
    "folders within train/good, .jfif, and val in place of validation",
    trees.both(
      trees.move(NORMAL[0], "data/nuts/train/good/monday/000.png"),
      trees.image("data/nuts/train/good/phone.jfif"),
      trees.move("data/nuts/validation", "data/nuts/val"),
    ),
    trees.PASSED,
  ),
  trees.Case(
    "val beside validation",
    trees.image("data/nuts/val/good/000.png"),
    "HERE/data/nuts has val, validation, which all mean validation. Keep one of them.",
  ),
  trees.Case(
    "test/Good and test/OK",
    trees.both(
      trees.move(f"{trees.TEST}/good", f"{trees.TEST}/Good"),
      trees.image(f"{trees.TEST}/OK/001.png"),
    ),
    trees.PASSED,
  ),
  trees.Case("no normal test images", trees.remove(f"{trees.TEST}/good"), trees.PASSED),
  trees.Case(
    "a category whose name has commas",
    trees.move("data/nuts", "data/nuts, M2,5"),
    trees.PASSED,
    ("data.category=nuts, M2,5",),
  ),
  trees.Case("umlauts of two Unicode forms", forms, trees.PASSED),
)


class Told(NamedTuple):
  """What a test of another file, which is named, holds to be true."""

  title: str
  command: str
  sees: str
  test: str


ACCEPTED = trees.PASSED
LAYOUTS = "test_naming.py::test_the_trees_of_other_data_sets_are_known"
TOLD = (
  *(
    Told(f"a data set in the layout of {name}", "train, evaluate", ACCEPTED, LAYOUTS)
    for name in ("AutoVI", "BTAD", "MVTec AD 2", "VisA")
  ),
  Told(
    "a second training in the same --workdir",
    "train",
    "Error: HERE is in use: another process trains there. Wait until it has ended, or "
    "use another --workdir.",
    "test_locking.py::test_a_second_process_is_told_until_the_first_has_ended",
  ),
  Told(
    "more steps than a run that has ended had",
    "train",
    "accepted: goes on to them, calibrates and evaluates anew",
    "test_trainer.py::test_more_steps_extend_a_finished_run",
  ),
  Told(
    "fewer steps than the run had",
    "train",
    "Error: HERE holds a run with other settings:\n  config.train.steps: 20 in the "
    "workdir, 12 asked for; steps can be raised, not lowered: give 20 or more\n...",
    "test_description.py::test_more_steps_extend_a_run_and_fewer_are_refused",
  ),
  Told(
    "so many training images that their patches would not fit (20,000)",
    "train",
    "accepted: of each image a part of its patches, 2^20 of all",
    "test_calibrating.py::test_the_pool_of_patches_is_bounded",
  ),
  Told(
    "a --workdir whose name is not UTF-8",
    "train",
    "Error: --workdir=runs/caf\\xe9 has a name that is not UTF-8. Rename the folder.",
    "test_files.py::test_a_run_in_a_folder_that_is_not_utf8_is_refused",
  ),
  Told(
    "the only category's folder renamed since the training",
    "evaluate",
    "accepted: its images tell",
    "test_evaluate.py::test_a_renamed_folder_of_a_run_s_only_category_is_known",
  ),
  Told(
    "test images that are all normal, or all not",
    "evaluate",
    "accepted: AUROC is left out, with a warning",
    "test_category.py::test_without_good_or_anomalous_images",
  ),
  Told(
    "a console that cannot show a letter (cp1252)",
    "all",
    "its number: \\u65e5",
    "test_console.py::test_no_name_ends_a_command_on_an_old_console",
  ),
)
