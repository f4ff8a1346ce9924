"""Records of any image files and folders, of which nothing more is known."""

from collections.abc import Sequence
import os
import pathlib

from nps_jax.data import listing
from nps_jax.data import records


def images(paths: Sequence[str]) -> tuple[records.Record, ...]:
  """Unlabelled records of image files, and of all images in folders at any depth.

  An id is the path below its folder without suffix, or as much more of the path as
  tells it from the other ids. A file that is reached twice counts once.

  Raises:
    FileNotFoundError: a path does not exist.
    ValueError: a file is no image by its suffix, or a folder has none.
  """
  by_real_path: dict[str, tuple[pathlib.Path, pathlib.Path]] = {}
  for path in (pathlib.Path(text).expanduser() for text in paths):
    if not path.exists():
      raise FileNotFoundError(f"{path} does not exist; give image files or folders.")
    files = list(listing.walk(path)) if path.is_dir() else [path]
    chosen = [file for file in files if listing.is_image(file)]
    if not chosen:
      raise ValueError(
        f"{path} gives no image: found {listing.suffixes(files)}, expected "
        f"{', '.join(listing.SUFFIXES)}. Convert the files, or name others."
      )
    base = path if path.is_dir() else path.parent
    for file in chosen:
      by_real_path.setdefault(os.path.realpath(file), (base, file))
  if not by_real_path:
    raise ValueError("No images were named; give image files or folders.")
  pairs = by_real_path.values()
  ids = listing.distinct([_possible_ids(base, file) for base, file in pairs])
  return tuple(
    records.Record(id=name, category="", split="test", kind="", image=file)
    for name, (_, file) in zip(ids, pairs, strict=True)
  )


def _possible_ids(base: pathlib.Path, file: pathlib.Path) -> tuple[str, ...]:
  below, whole = file.relative_to(base), pathlib.Path(os.path.abspath(file))
  named = pathlib.PurePath(listing.own_name(base)) / below
  full = whole.relative_to(whole.anchor)
  return (
    below.with_suffix("").as_posix(),
    *map(pathlib.PurePath.as_posix, (below, named, full)),
  )
