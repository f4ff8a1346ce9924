"""Records from a folder tree in the layout of MVTec LOCO AD, of MVTec AD, or plain."""

from collections.abc import Sequence
import pathlib

from absl import logging
import ml_collections
import numpy as np

from nps_jax.data import layouts
from nps_jax.data import listing
from nps_jax.data import masks
from nps_jax.data import naming
from nps_jax.data import records

LAYOUTS = ("auto", "loco", "mvtec_ad", "plain")
LOCO_KINDS = (records.GOOD, records.LOGICAL, records.STRUCTURAL)
WAY_OUT = "Change the root: config.data.root, or --dataset of an evaluation."
FEWEST = 6  # images that are held out, unless these were more than a third
PARTS = ("ground_truth", "defects_config.json")  # of a category, besides its splits


def open_all(
  config: ml_collections.ConfigDict, seed: int
) -> tuple[records.Dataset, ...]:
  """The data sets of all categories that config.data names, in its order.

  Raises:
    ValueError, FileNotFoundError: as `resolve` and `open_category` do.
  """
  if not config.root:
    raise ValueError(
      "config.data.root is empty. Set it to the folder that holds the categories, or "
      "to one category's folder, the one with train/ in it."
    )
  root = pathlib.Path(config.root).expanduser()
  return tuple(
    open_category(
      root,
      name,
      layout=config.layout,
      seed=seed,
      validation_fraction=config.validation_fraction,
    )
    for name in resolve(root, config.category)
  )


def find_categories(root: pathlib.Path) -> tuple[str, ...]:
  """The names of the categories under a root, sorted.

  A root with train/ or test/good/ is a category itself, and its name the only one.

  Raises:
    FileNotFoundError: there is no such folder, or it holds no category.
    ValueError: the root is a file.
  """
  if not root.exists():
    near = next(parent for parent in root.absolute().parents if parent.exists())
    raise FileNotFoundError(
      f"The data folder {root} does not exist; {near} holds {listing.contents(near)}. "
      f"{WAY_OUT}"
    )
  if not root.is_dir():
    raise ValueError(
      f"The data folder {root} is a file; unpack an archive first. {WAY_OUT}"
    )
  if is_category(root):
    return (listing.own_name(root),)
  categories = tuple(
    folder.name
    for folder in listing.folders(root)
    if any((folder / part).exists() for part in PARTS)
    or any(naming.find_split(folder, split) for split in naming.SPLITS)
  )
  if not categories:
    raise FileNotFoundError(
      f"{root} holds no category; expected {root}/train or {root}/<category>/train, "
      f"found {listing.contents(root)}. {WAY_OUT}"
    )
  return categories


def resolve(root: pathlib.Path, category: str) -> tuple[str, ...]:
  """The categories meant by "all", by one name, or by several with commas.

  Raises:
    ValueError: a name that is not there; lists those that are.
    FileNotFoundError: as `find_categories` does.
  """
  return choose(root, find_categories(root), category)


def choose(
  root: pathlib.Path, categories: Sequence[str], category: str
) -> tuple[str, ...]:
  """Those of the categories under a root that are meant, as `resolve` has it.

  Raises:
    ValueError: a name that is not there; lists those that are.
  """
  if category in categories:
    return (category,)
  if category == "all":
    return tuple(categories)
  named = naming.split_names(category, categories)
  unknown = [name for name in named if name not in categories]
  if unknown or not named:
    raise ValueError(
      f"The category is {category!r}; {root} has {listing.some(categories)}."
      + (listing.near(unknown, categories) or ' Name some of these, or "all".')
    )
  return tuple(named)


def open_category(
  root: pathlib.Path,
  category: str,
  *,
  layout: str = "auto",
  seed: int = 0,
  validation_fraction: float = 0.1,
) -> records.Dataset:
  """One category's records, sorted by file name within each split and kind.

  Args:
    category: a name; "all" will do where the root has one category.
    layout: one of LAYOUTS; "auto" goes by the ground truth's form.
    seed: chooses the validation images where no validation folder exists.
    validation_fraction: of the training images, for the same case.

  Raises:
    ValueError, FileNotFoundError: the layout or the category is unknown, normal images
      are missing, or images and ground truth do not match; lists what was found.
  """
  name, folder, layout = _locate(root, category, layout)
  naming.check(folder, name)
  place, train = _normal_images(folder, "train")
  if naming.find_split(folder, "validation"):
    held_out, validation = _normal_images(folder, "validation")
  else:
    held_out = place
    train, validation = _hold_out(folder, train, seed, validation_fraction)
  test = _read_test_split(folder, name, layout)
  return records.Dataset(
    category=name,
    layout=layout,
    train=_records(name, "train", records.GOOD, train, place),
    validation=_records(name, "validation", records.GOOD, validation, held_out),
    test=test,
    defects=_defects(folder, layout, needed=bool(test)),
  )


def open_test_split(
  root: pathlib.Path, category: str, *, layout: str = "auto"
) -> records.Dataset:
  """One category's test records alone; training images need not be there.

  Raises:
    ValueError, FileNotFoundError: as `open_category` does, or no test images.
  """
  name, folder, layout = _locate(root, category, layout)
  test = _read_test_split(folder, name, layout)
  if not test:
    raise ValueError(
      f"{folder} has no test images; found {listing.contents(folder)}. Put them into "
      f"{folder}/test/<kind>."
    )
  return records.Dataset(
    category=name,
    layout=layout,
    train=(),
    validation=(),
    test=test,
    defects=_defects(folder, layout, needed=True),
  )


def place_of(root: pathlib.Path, category: str) -> pathlib.Path:
  """The folder of a category, which may be the root itself."""
  return root if is_category(root) else root / category


def _locate(
  root: pathlib.Path, category: str, layout: str
) -> tuple[str, pathlib.Path, str]:
  """The category's name, its folder, and its layout."""
  if layout not in LAYOUTS:
    raise ValueError(f"config.data.layout is {layout!r}; expected one of {LAYOUTS}.")
  names = resolve(root, category)
  if len(names) != 1:
    raise ValueError(
      f"{category!r} means {listing.some(names)}; expected one category."
    )
  folder = place_of(root, names[0])
  if layout == "auto":
    layout = layouts.find_layout(folder)
  return names[0], folder, layout


def is_category(folder: pathlib.Path) -> bool:
  """Whether the folder is a category's own, and not one of several."""
  if naming.find_split(folder, "train"):
    return True
  test = naming.find_split(folder, "test")
  return test is not None and bool(naming.normal_folders(test))


def _defects(
  folder: pathlib.Path, layout: str, needed: bool
) -> tuple[records.Defect, ...]:
  """The defects that masks stand for; without test images they may be missing."""
  config = folder / "defects_config.json"
  wanted = layout == "loco" and (needed or config.exists())
  return masks.read_defects(config) if wanted else ()


def _normal_images(
  folder: pathlib.Path, split: str
) -> tuple[pathlib.Path, list[pathlib.Path]]:
  """A split's normal images, in it or in its good folder, and what they lie below."""
  place = naming.find_split(folder, split)
  if place is None:
    raise FileNotFoundError(
      f"{folder} has no folder {split}; found {listing.contents(folder)}. Put normal "
      f"images into {folder / split / records.GOOD}."
    )
  inner = naming.normal_folders(place)
  if inner and any(listing.is_image(file) for file in listing.files(place)):
    raise ValueError(
      f"{place} holds images both directly and in {inner[0].name}/. Put all of them "
      f"into {inner[0]}."
    )
  others = [each.name for each in listing.folders(place) if each not in inner]
  if inner and others:
    logging.warning(
      "%s: only %s is read; ignored are %s.",
      *(place, listing.some([each.name for each in inner]), listing.some(others)),
    )
  paths = [path for each in inner or [place] for path in listing.images(each)]
  if not paths:
    way_out = ", or remove the folder" if split == "validation" else ""
    where = inner[0] if inner else place
    raise ValueError(
      f"{where} holds no images; found {listing.contents(where)}. Put normal images "
      f"into it{way_out}."
    )
  return inner[0] if len(inner) == 1 else place, paths


def _hold_out(
  folder: pathlib.Path, train: list[pathlib.Path], seed: int, fraction: float
) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
  """The training images that stay, and those that become validation images."""
  if not 0 < fraction < 1:
    raise ValueError(
      f"config.data.validation_fraction is {fraction}; expected a value in (0, 1)."
    )
  if len(train) < 2:
    raise ValueError(
      f"{folder} has a single training image and no validation folder, so none can be "
      "held out. Add images."
    )
  few = min(FEWEST, len(train) // 3)
  count = min(max(1, few, round(fraction * len(train))), len(train) - 1)
  chosen = set(np.random.default_rng(seed).permutation(len(train))[:count].tolist())
  logging.info(
    "%s has no validation folder: %d of its %d training images serve as one.",
    folder,
    count,
    len(train),
  )
  kept = [path for at, path in enumerate(train) if at not in chosen]
  return kept, [path for at, path in enumerate(train) if at in chosen]


def _read_test_split(
  folder: pathlib.Path, category: str, layout: str
) -> tuple[records.Record, ...]:
  """The test records, with their masks except in the plain layout."""
  place = naming.find_split(folder, "test")
  if place is None:
    return ()
  files, beside = {}, {}
  for kind in naming.kinds(place):
    files[kind.name], masks_there = naming.split_masks(listing.images(kind))
    beside |= masks_there
  unknown = [kind for kind in files if naming.kind_of(kind) not in LOCO_KINDS]
  if layout == "loco" and set(files) & set(LOCO_KINDS[1:]) and unknown:
    raise ValueError(
      f"{place} holds {listing.some(unknown)}; the LOCO layout has "
      f"{listing.some(LOCO_KINDS)}, or other kinds alone. Rename or move the folders, "
      "or change config.data.layout."
    )
  loose = [file for file in listing.files(place) if listing.is_image(file)]
  if loose:
    raise ValueError(
      f"{place} holds images outside of a kind's folder: {listing.some(loose)}. Put "
      f"normal ones into {place}/{records.GOOD}, others into a folder named after "
      "their kind."
    )
  truth = (
    {} if layout == "plain" else layouts.match(folder, place, layout, files, beside)
  )
  return tuple(
    record
    for kind in files
    for record in _records(category, "test", kind, files[kind], place / kind, truth)
  )


def _records(
  category: str,
  split: str,
  kind: str,
  files: Sequence[pathlib.Path],
  place: pathlib.Path,
  truth: dict[pathlib.Path, tuple[pathlib.Path, ...]] | None = None,
) -> tuple[records.Record, ...]:
  """The files' records, whose ids have the kind and the path below the place."""
  below = [file.relative_to(place) for file in files]
  names = listing.distinct(
    [(path.with_suffix("").as_posix(), path.as_posix()) for path in below]
  )
  return tuple(
    records.Record(
      id=f"{category}/{split}/{kind}/{name}",
      category=category,
      split=split,
      kind=naming.kind_of(kind),
      image=file,
      masks=(truth or {}).get(file, ()),
    )
    for name, file in zip(names, files, strict=True)
  )
