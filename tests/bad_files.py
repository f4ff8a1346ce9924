"""Image files odd by their names, links or rights; and what becomes of them."""

from collections.abc import Callable
import os
import pathlib
from typing import NamedTuple

import bad_images

READ, UNSEEN = "read", "not seen"
LOCKED = "locked.png"  # the tests have its opening fail


class Case(NamedTuple):
  """A file in a folder of images: it is read, not seen, or refused with a reason."""

  title: str
  name: str
  make: Callable[[pathlib.Path], object]
  train: str
  predict: str = ""  # where it differs from the former

  @property
  def predicted(self) -> str:
    return self.predict or self.train


def put(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(bad_images.WHOLE["PNG"])


def circle(path):
  """Two links that lead to one another; the second is no image by its name."""
  path.symlink_to(path.with_suffix(".link"))
  path.with_suffix(".link").symlink_to(path)


def beside_a_folder(path):
  put(path)
  put(path.with_suffix(".png") / "inner.png")


GONE = "FILE cannot be read ({}). Replace or remove it."
RENAME = "FILE cannot be scored ({}). Rename it."
CASES = (
  Case("a name with spaces", "two  words.png", put, READ),
  Case("a name in other letters", "größe 日本.png", put, READ),
  Case("a name of two lines", "two\nlines.png", put, READ),
  Case(
    "an empty file with a name of two lines",
    *("empty\ntoo.png", lambda path: path.touch(), GONE.format("it is empty")),
  ),
  Case(
    "a name of 255 bytes",
    *("long" * 62 + "abc.png", put, READ),
    RENAME.format("the name of its map would have more than 255 bytes"),
  ),
  Case("a name that is not UTF-8", os.fsdecode(b"bytes \xff.png"), put, READ),
  Case("a name with a leading dot", ".hidden.png", put, UNSEEN),
  Case("a suffix in capitals", "LOUD.PNG", put, READ),
  Case(
    "a link that leads nowhere",
    *("gone.png", lambda path: path.symlink_to("nowhere")),
    GONE.format("No such file or directory"),
  ),
  Case(
    "two links that lead to one another",
    *("circle.png", circle, GONE.format("Too many levels of symbolic links")),
  ),
  Case(
    "a folder named like an image, with an image in it",
    *("folder.png/inner.png", put, READ),
  ),
  Case(
    "an image beside a folder whose name its overlay would have",
    *("taken.tif", beside_a_folder, READ),
    RENAME.format("its map or overlay cannot be there beside those of taken.png/"),
  ),
  Case(
    "a named pipe",
    *("pipe.png", os.mkfifo, GONE.format("it is no regular file")),
  ),
  Case(
    "a file that may not be read (the test has its opening fail)",
    *(LOCKED, put, GONE.format("Permission denied")),
  ),
)
