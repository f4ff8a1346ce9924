"""The table of bad input, from the cases that tests/test_bad_input.py goes through."""

import pathlib

import bad_archives
import bad_files
import bad_images
import bad_scoring
import bad_training
import bad_trees
import bad_usual

PATH = pathlib.Path(__file__).parent / "BAD_INPUT.md"
INTRODUCTION = """\
# Bad input, and what a user sees

Written by `python tests/bad_table.py`; the tests hold every line to be true.

- **train** reads all images and masks before its first step. If any is bad it lists
  them, ends with exit status 1, and has written nothing.
- **predict** scores what it can. Images left out are in `errors.csv`, with these
  reasons; the exit status is 0, and 1 with `--strict` or if no image is left.
- **evaluate** (of `--maps`) writes all of its files or none.

FILE and HERE stand for paths, ... for more words, among them those of libraries.
"""


COMMANDS = {
  "train": bad_training.TRAIN + bad_usual.TRAIN,
  "evaluate": bad_scoring.MAPS,
  "predict": bad_scoring.PREDICT,
}


def rows():
  """The table's rows: the case, the commands, and the words."""
  for case in bad_images.CASES:
    refused = f"FILE cannot be read ({case.sees}). Replace or remove it."
    sees = refused if case.pixels is None else case.sees
    yield f"{case.title} (.{case.suffix})", "train, predict", sees
  for case in bad_files.CASES:
    if case.train == case.predicted:
      yield case.title, "train, predict", case.train
    else:
      yield case.title, "train", case.train
      yield case.title, "predict", case.predicted
  for case in bad_scoring.OTHERS + bad_archives.CASES:
    command, *flags = case.flags
    title = " ".join([case.title, *(f"`{flag}`" for flag in flags)])
    yield title, command, f"Error: {case.sees}"
  for command, cases in COMMANDS.items():
    for case in cases:
      passed = case.sees.startswith(bad_trees.PASSED)
      title = " ".join([case.title, *(f"`{flag}`" for flag in case.flags)])
      yield title, command, case.sees if passed else f"Error: {case.sees}"
  for case in bad_usual.TOLD:
    yield case.title, case.command, case.sees


def table():
  lines = [
    INTRODUCTION,
    "| case | seen by | what the user sees |",
    "| --- | --- | --- |",
  ]
  for row in rows():
    cells = (each.replace("|", "\\|").replace("<", "&lt;") for each in row)
    lines.append("| " + " | ".join(each.replace("\n", "<br>") for each in cells) + " |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  PATH.write_text(table(), "utf-8")
