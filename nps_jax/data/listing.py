"""What a folder holds: images, subfolders, and how messages name them."""

import collections
from collections.abc import Iterable, Iterator, Sequence
import difflib
import os
import pathlib

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LISTED = 10  # names that a message shows at most


def folders(place: pathlib.Path) -> list[pathlib.Path]:
  """Its subfolders by name; none if there is no such place."""
  return [each for each in _visible(place) if each.is_dir()]


def files(place: pathlib.Path) -> list[pathlib.Path]:
  """Its files by name, broken links included; none if there is no such place."""
  return [each for each in _visible(place) if not each.is_dir()]


def images(place: pathlib.Path) -> list[pathlib.Path]:
  """Its image files by name; other files count only where there is nothing else.

  Raises:
    ValueError: it holds files, none of which is an image by its suffix.
  """
  held = files(place)
  found = [each for each in held if is_image(each)]
  if held and not found:
    raise ValueError(
      f"{place} holds no images: found {suffixes(held)}, expected "
      f"{', '.join(SUFFIXES)}. Convert the files."
    )
  return found


def walk(place: pathlib.Path) -> Iterator[pathlib.Path]:
  """Its files at any depth, those of a folder before those of its subfolders.

  A folder that links lead to several times, or from within itself, counts once.
  """
  seen, waiting = set(), [place]
  while waiting:
    each = waiting.pop()
    real = os.path.realpath(each)
    if real not in seen:
      seen.add(real)
      yield from files(each)
      waiting += reversed(folders(each))


def is_image(path: pathlib.Path) -> bool:
  return path.suffix.lower() in SUFFIXES


def suffixes(paths: Iterable[pathlib.Path]) -> str:
  """The suffixes among the files, for a message."""
  return some(sorted({each.suffix or each.name for each in paths}))


def contents(place: pathlib.Path) -> str:
  """What lies in the folder, for a message."""
  return some([each.name + "/" * each.is_dir() for each in _visible(place)])


def some(items: Sequence[object]) -> str:
  """The first few items and how many more there are, for a message."""
  more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
  return (", ".join(map(str, items[:LISTED])) or "nothing") + more


def near(names: Iterable[object], known: Sequence[str]) -> str:
  """ "Did you mean ...?", for a message, of known names like these; else nothing."""
  close = [difflib.get_close_matches(str(name), known, n=1) for name in names]
  found = ", ".join(repr(match[0]) for match in close if match)
  return f" Did you mean {found}?" if found else ""


def own_name(folder: pathlib.Path) -> str:
  """The folder's name, also where it was given as a dot."""
  return pathlib.Path(os.path.abspath(folder)).name


def distinct(choices: Sequence[tuple[str, ...]]) -> list[str]:
  """The first choice of each, or where that is not unique a later one."""
  level = [0] * len(choices)
  while True:
    names = [each[at] for each, at in zip(choices, level, strict=True)]
    count = collections.Counter(names)
    raised = [
      min(at + (count[name] > 1), len(each) - 1)
      for each, at, name in zip(choices, level, names, strict=True)
    ]
    if raised == level:
      return names
    level = raised


def _visible(place: pathlib.Path) -> list[pathlib.Path]:
  if not place.is_dir():
    return []
  return sorted(each for each in place.iterdir() if not each.name.startswith("."))
