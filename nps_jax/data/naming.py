"""What people call a data set's folders: its splits, and what is normal in them."""

from collections.abc import Iterable, Sequence
import pathlib
import unicodedata

from nps_jax.data import listing
from nps_jax.data import records
from nps_jax.runs import files

SPLITS = {  # folder names by split, in any case
  "train": ("train", "training"),
  "validation": ("validation", "val", "valid"),
  "test": ("test", "testing", "test_public"),
}
NORMAL = ("good", "ok", "normal", "nominal", "defect_free")  # of a kind, in any case
TRUTH = "ground_truth"  # folder of the masks, in the category's or its test images'
MASK = "_mask"  # ends the name of a mask that lies beside others' or its image


def check(folder: pathlib.Path, category: str) -> None:
  """Makes sure that a run can store what belongs to a category under its name.

  Raises:
    ValueError: it is not UTF-8.
  """
  files.check_name(category, f"The folder of a category, {files.shown(str(folder))},")


def find_split(folder: pathlib.Path, split: str) -> pathlib.Path | None:
  """The category's folder of a split, by any of its names; None if there is none.

  Raises:
    ValueError: there are several.
  """
  there = [
    place for place in listing.folders(folder) if place.name.casefold() in SPLITS[split]
  ]
  if len(there) > 1:
    raise ValueError(
      f"{folder} has {listing.some([place.name for place in there])}, which all mean "
      f"{split}. Keep one of them."
    )
  return there[0] if there else None


def find_truth(folder: pathlib.Path) -> pathlib.Path:
  """The category's folder of masks, which MVTec AD 2 has among the test images."""
  test = find_split(folder, "test")
  if test is not None and (test / TRUTH).is_dir():
    return test / TRUTH
  return folder / TRUTH


def kinds(test: pathlib.Path) -> list[pathlib.Path]:
  """The folders of the kinds among the test images."""
  return [place for place in listing.folders(test) if place.name != TRUTH]


def is_normal(name: str) -> bool:
  """Whether a folder of this name holds normal images."""
  return name.casefold() in NORMAL


def kind_of(name: str) -> str:
  """The kind that a test folder's name stands for."""
  return records.GOOD if is_normal(name) else name


def normal_folders(place: pathlib.Path) -> list[pathlib.Path]:
  """The folders of normal images in a split's folder."""
  return [each for each in listing.folders(place) if is_normal(each.name)]


def same(name: str) -> str:
  """A name in the one form of all that look the same (NFC)."""
  return unicodedata.normalize("NFC", name)


def key(path: pathlib.Path, place: pathlib.Path) -> str:
  """A file's path below a folder, without suffix, in one form."""
  return same(path.relative_to(place).with_suffix("").as_posix())


def split_masks(
  paths: Sequence[pathlib.Path],
) -> tuple[list[pathlib.Path], dict[pathlib.Path, list[pathlib.Path]]]:
  """The images among files, and the masks that lie beside them as NAME_mask.

  A name that ends so without an image of the name is an image.
  """
  stems = {path.with_suffix(""): path for path in paths}
  masks: dict[pathlib.Path, list[pathlib.Path]] = {}
  images = []
  for path in paths:
    image = stems.get(path.with_name(path.stem.removesuffix(MASK)))
    if path.stem.endswith(MASK) and image is not None:
      masks.setdefault(image, []).append(path)
    else:
      images.append(path)
  return images, masks


def split_names(text: str, known: Iterable[str]) -> list[str]:
  """The names with commas between them, where a known one may have commas itself."""
  known, parts, names = set(known), text.split(","), []
  while parts:
    lengths = [
      end for end in range(len(parts), 1, -1) if ",".join(parts[:end]).strip() in known
    ]
    end = lengths[0] if lengths else 1
    names.append(",".join(parts[:end]).strip())
    parts = parts[end:]
  return list(dict.fromkeys(name for name in names if name))
