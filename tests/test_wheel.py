"""The package as a wheel: it lacks nothing, and works without the repository."""

import csv
import itertools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile

import numpy as np
import pytest
import runs

ROOT = runs.CONFIGS.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OFFLINE = ("--no-deps", "--no-index")
BUILT = ("LICENSE", "README.md", "configs", "nps_jax", "pyproject.toml")  # of these


def do(*words, cwd, **environment):
  """Runs a command as one outside of the repository would; returns what it said."""
  own = {name: os.environ[name] for name in os.environ if name != "PYTHONPATH"}
  done = subprocess.run(
    words,
    cwd=cwd,
    env=own | environment,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  """The wheel, built from a copy: the repository gets no build folder."""
  place = tmp_path_factory.mktemp("wheel")
  ignored = shutil.ignore_patterns("__pycache__")
  for name in BUILT:
    if (ROOT / name).is_dir():
      shutil.copytree(ROOT / name, place / "source" / name, ignore=ignored)
    else:
      (place / "source").mkdir(exist_ok=True)
      shutil.copy(ROOT / name, place / "source" / name)
  flags = (*OFFLINE, "--no-build-isolation", f"--wheel-dir={place}")
  do(*PIP, "wheel", *flags, str(place / "source"), cwd=place)
  (path,) = place.glob("*.whl")
  return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
  """A Python that has the wheel, and of the tests' environment all but nps_jax."""
  place = tmp_path_factory.mktemp("environment")
  venv.create(place, with_pip=False, symlinks=True)
  python = place / "bin" / "python"
  own = do(
    python, "-c", "import sysconfig as s; print(s.get_path('purelib'))", cwd=place
  )
  packages = pathlib.Path(own.strip())
  do(*PIP, f"--python={python}", "install", *OFFLINE, str(wheel), cwd=place)
  # Folders that a .pth file names are searched after the wheel, and without their own
  # .pth files, one of which leads to the repository.
  shared = [
    path for path in sys.path if path.endswith(("site-packages", "dist-packages"))
  ]
  (packages / "shared.pth").write_text("\n".join(shared))
  return python


def test_the_wheel_has_every_module_and_config_and_the_encoder(wheel):
  with zipfile.ZipFile(wheel) as file:
    there = {name for name in file.namelist() if ".dist-info/" not in name}
  modules = [path.relative_to(ROOT) for path in (ROOT / "nps_jax").rglob("*.py")]
  wanted = {path.as_posix() for path in modules}
  wanted |= {f"nps_jax/configs/{path.name}" for path in runs.CONFIGS.glob("*.py")}
  wanted |= {f"nps_jax/models/builtin.{suffix}" for suffix in ("md", "safetensors")}
  pages = (ROOT / "nps_jax/report/templates").iterdir()
  wanted |= {path.relative_to(ROOT).as_posix() for path in pages}
  wanted.add("nps_jax/report/published.csv")
  assert there == wanted
  assert {"nps_jax/configs/folder.py", "nps_jax/data/folder.py"} < wanted


def test_every_dependency_has_its_licence_named():
  text = (ROOT / "third_party" / "README.md").read_text(encoding="utf-8")
  extras = PROJECT["project"]["optional-dependencies"].values()
  for requirement in itertools.chain(PROJECT["project"]["dependencies"], *extras):
    name = re.match(r"[\w-]+", requirement)[0]
    assert re.search(rf"(?<![\w-]){name}(?![\w-])", text), name


@pytest.mark.slow
def test_an_installed_package_trains_and_predicts_elsewhere(python, root, tmp_path):
  code = "import sys, nps_jax; print(nps_jax.__file__, *sys.path, sep='\\n')"
  module, *places = do(python, "-c", code, cwd=tmp_path).splitlines()
  assert pathlib.Path(module).is_relative_to(python.parents[1])
  assert str(ROOT) not in places
  light = runs.overrides(
    root,
    data__category="tray",
    encoder__weights="builtin",
    encoder__levels="(4,)",
    image_size=32,
    train__steps=2,
    structural__enabled=False,
    codebook__parts=0,
  )
  one = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
  train = ("nps_jax.train", "--config=folder", *light, "--workdir=run")
  do(python, "-m", *train, cwd=tmp_path, XLA_FLAGS=one)
  predict = ("nps_jax.predict", "--run=run", f"--images={root / 'tray/test/good'}")
  said = do(python, "-m", *predict, "--out=out", cwd=tmp_path, XLA_FLAGS=one)
  assert said.startswith(f"{runs.COUNTS.good} images scored")
  with (tmp_path / "out" / "scores.csv").open(newline="", encoding="utf-8") as file:
    scores = [float(row["score"]) for row in csv.DictReader(file)]
  assert len(scores) == runs.COUNTS.good and np.isfinite(scores).all()
