"""Which state of this package made a result, and how long each part of it took."""

from collections.abc import Iterator
import contextlib
import importlib.metadata
import json
import pathlib
import subprocess
import time
from typing import Any

from nps_jax import distributed
from nps_jax.runs import files

FILE = "provenance.json"  # in a run: of each part its seconds, and who made it last


@contextlib.contextmanager
def timed(workdir: pathlib.Path, part: str) -> Iterator[None]:
  """Adds what a part of a run takes to its seconds, also if the part is broken off."""
  start = time.perf_counter()
  try:
    yield
  finally:
    if distributed.is_lead():
      parts = read(workdir)
      earlier = parts.get(part, {}).get("seconds", 0.0)
      seconds = round(earlier + time.perf_counter() - start, 3)
      parts[part] = {"seconds": seconds, **package()}
      files.write_text(workdir / FILE, json.dumps(parts, indent=2) + "\n")


def read(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """By part its seconds, and the package's version and commit; empty if not told."""
  path = workdir / FILE
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError):
    return {}


def package() -> dict[str, str | None]:
  """This package's version, and the commit where it lies in a git repository."""
  root = pathlib.Path(__file__).resolve().parents[2]
  try:
    version = importlib.metadata.version("nps_jax")
  except importlib.metadata.PackageNotFoundError:
    version = None
  top = _git(root, "rev-parse", "--show-toplevel")
  if not top or pathlib.Path(top).resolve() != root:  # another project's, around ours
    return {"version": version, "commit": None}
  words = ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")
  return {"version": version, "commit": _git(root, *words)}


def _git(root: pathlib.Path, *words: str) -> str | None:
  try:
    done = subprocess.run(
      ["git", "-C", str(root), *words], capture_output=True, text=True, check=False
    )
  except OSError:
    return None
  return done.stdout.strip() if done.returncode == 0 else None
