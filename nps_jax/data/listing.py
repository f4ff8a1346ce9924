"""What a folder holds: images, subfolders, and how messages name them."""

import collections
from collections.abc import Iterable, Iterator, Sequence
import difflib
import os
import pathlib

SUFFIXES = (".bmp", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
LISTED = 10  # names that a message shows at most


def folders(place: pathlib.Path) -> list[pathlib.Path]:
  """Its subfolders by name; none if there is no such place."""
  return [path for path in _visible(place) if path.is_dir()]


def files(place: pathlib.Path) -> list[pathlib.Path]:
  """Its files by name, broken links included; none if there is no such place."""
  return [path for path in _visible(place) if not path.is_dir()]


def images(place: pathlib.Path) -> list[pathlib.Path]:
  """Its image files at any depth; other files count only where there is nothing else.

  Raises:
    ValueError: it holds files, none of which is an image by its suffix.
  """
  paths = list(walk(place))
  chosen = [path for path in paths if is_image(path)]
  if paths and not chosen:
    raise ValueError(
      f"{place} holds no images: found {suffixes(paths)}, expected "
      f"{', '.join(SUFFIXES)}. Convert the files."
    )
  return chosen


def walk(place: pathlib.Path) -> Iterator[pathlib.Path]:
  """Its files at any depth, those of a folder before those of its subfolders.

  A folder that links lead to several times, or from within itself, counts once.
  """
  seen, waiting = set(), [place]
  while waiting:
    folder = waiting.pop()
    real = os.path.realpath(folder)
    if real not in seen:
      seen.add(real)
      yield from files(folder)
      waiting += reversed(folders(folder))


def is_image(path: pathlib.Path) -> bool:
  return path.suffix.lower() in SUFFIXES


def suffixes(paths: Iterable[pathlib.Path]) -> str:
  """The suffixes among the files, for a message."""
  return some(sorted({path.suffix or path.name for path in paths}))


def contents(place: pathlib.Path) -> str:
  """What lies in the folder, for a message."""
  return some([path.name + "/" * path.is_dir() for path in _visible(place)])


def some(items: Sequence[object]) -> str:
  """The first few items and how many more there are, for a message."""
  more = f" and {len(items) - LISTED} more" if len(items) > LISTED else ""
  return (", ".join(map(str, items[:LISTED])) or "nothing") + more


def near(names: Iterable[object], allowed: Sequence[str]) -> str:
  """ "Did you mean ...?", for a message, of allowed names like these; else nothing."""
  matches = [difflib.get_close_matches(str(name), allowed, n=1) for name in names]
  hint = ", ".join(repr(match[0]) for match in matches if match)
  return f" Did you mean {hint}?" if hint else ""


def own_name(folder: pathlib.Path) -> str:
  """The folder's name, also where its path is a dot."""
  return pathlib.Path(os.path.abspath(folder)).name


def distinct(choices: Sequence[tuple[str, ...]]) -> list[str]:
  """The first choice of each, or where that is not unique a later one."""
  level = [0] * len(choices)
  while True:
    names = [options[at] for options, at in zip(choices, level, strict=True)]
    count = collections.Counter(names)
    raised = [
      min(at + (count[name] > 1), len(options) - 1)
      for options, at, name in zip(choices, level, names, strict=True)
    ]
    if raised == level:
      return names
    level = raised


def _visible(place: pathlib.Path) -> list[pathlib.Path]:
  if not place.is_dir():
    return []
  return sorted(path for path in place.iterdir() if not path.name.startswith("."))
