"""What the commands make of their flags, and what they show of the log."""

import io
import logging
import pathlib
import shutil
import subprocess
import sys
import warnings

from absl import flags
from absl import logging as absl_logging
import pytest
import runs

from nps_jax import config as settings
from nps_jax import console
from nps_jax.study import plan

METHOD = "folder, loco, mvtec_ad, pretrain, synthetic"  # files with get_config()
OWN = """
from nps_jax import config as settings

def get_config(steps="7"):
  config = settings.defaults()
  config.train.steps = int(steps)
  return config
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
  """An empty folder, from which the command is started."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


def load(*words, **options):
  """The config, and what is left, of a command with these words."""
  values, argv = flags.FlagValues(), ["command", *words]
  console.define_config(values, argv, **options)
  return console.read(argv, values), values["config"].value


@pytest.mark.parametrize("name", ["folder", "folder.py", "configs/folder.py"])
def test_a_config_of_the_package_is_found_from_anywhere(here, name):
  assert console.find(name) == str(runs.CONFIGS / "folder.py")
  for words in ([f"--config={name}"], [f"-config={name}"], ["--config", name]):
    left, config = load(*words, "--config.train.steps=9", "more")
    assert left == ["command", "more"]
    assert (config.encoder.name, config.train.steps) == ("resnet18", 9)
    assert config.is_locked


def test_the_variants_of_the_package_are_found_from_anywhere(here):
  assert console.find("ablation", "variants") == str(runs.CONFIGS / "ablation.py")
  (here / "tray" / "train").mkdir(parents=True)
  sweep = plan.make(
    ["--config=loco", "--variants=ablation", "--out=out", "--config.data.root=."]
  )
  assert "paper" in sweep.variants
  # What trains the runs may be started elsewhere.
  assert sweep.runs[0].command[1] == f"--config={runs.CONFIGS / 'loco.py'}"


def test_a_file_that_is_here_goes_before_the_package_s(here):
  (here / "folder").mkdir()  # of images, say
  assert console.find("folder") == str(runs.CONFIGS / "folder.py")
  (here / "configs").mkdir()
  (here / "configs" / "folder.py").write_text(OWN)
  for name in ("folder", "folder.py", "configs/folder.py"):
    assert console.find(name) == str(here / "configs" / "folder.py")
  (here / "folder.py").write_text(OWN)
  assert console.find("folder") == str(here / "configs" / "folder.py")
  assert console.find("folder.py") == str(here / "folder.py")
  assert load("--config=folder")[1].train.steps == 7


def test_what_follows_a_colon_goes_to_the_file(here, monkeypatch):
  (here / "mine.py").write_text(OWN)
  assert load("--config=mine.py:5")[1].train.steps == 5
  place = here / "a:b"
  place.mkdir()
  monkeypatch.chdir(place)
  (place / "mine.py").write_text(OWN)
  assert load("--config=mine.py")[1].train.steps == 7
  assert console.find("mine.py") == str(place / "mine.py")


def test_an_installed_package_has_its_configs_within(here, monkeypatch):
  module = here / "site" / "nps_jax" / "console.py"
  monkeypatch.setattr(console, "__file__", str(module))
  assert console.packaged() == here / "site" / "configs"
  shutil.copytree(runs.CONFIGS, module.parent / "configs")
  assert console.packaged() == module.parent / "configs"
  assert console.find("loco") == str(module.parent / "configs" / "loco.py")


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (
      ["--config=folde", "--config.data.root=x"],
      "flag --config=folde: There is no file folde; give --config=FILE.py or a name: "
      f"{METHOD}.",
    ),
    (["--config=lost/folder.py"], "There is no file lost/folder.py; give --config=FI"),
    (["--config=ablation"], "There is no file ablation; give"),
    (["--config="], "There is no file ; give --config=FILE.py"),
    ([], f"--config is missing; give a file of configs/ or its name: {METHOD}."),
    (
      ["--config.data.root=x"],
      "--config is missing; give a file of configs/ or its n",
    ),
    (
      ["--confg=folder", "--config.data.root=x"],
      "Unknown command line flag 'confg'. D",
    ),
    (["--config=folder", "--config.trian=3"], "'trian' Did you mean \"train\" instead"),
    (["--config=folder", "--config.seed=x"], "flag --config.seed=x: invalid literal f"),
    (
      ["--config.seed=1", "--config=folder"],
      "before a value for --config was specified",
    ),
    (["--config=pretrain"], "pretrain.py is a config of something else: it has no che"),
    (
      ["--config=wrong.py"],
      "wrong.py, line 6: AttributeError: 'trian' Did you mean \"",
    ),
    (
      ["--config=empty.py"],
      "empty.py: AttributeError: module 'config_file' has no att",
    ),
    (["--config=text.py"], "text.py: SyntaxError: invalid syntax (text.py, line 1)"),
  ],
)
def test_wrong_flags_are_answered_in_a_line(here, words, message):
  (here / "wrong.py").write_text(OWN.replace("train.steps", "trian.steps"))
  (here / "empty.py").write_text("")
  (here / "text.py").write_text("no python")
  with pytest.raises(ValueError) as caught:
    load(*words)
  assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_config_of_pretraining_is_told_from_the_method_s(here):
  assert load("--config=pretrain", fields=("kits",))[1].kits == 4
  with pytest.raises(ValueError, match="of something else: it has no kits"):
    load("--config=folder", fields=("kits",))


@pytest.mark.parametrize("module", ["train", "pretrain", "sweep", "study.rivals"])
def test_every_command_answers_an_unknown_name_alike(here, module):
  done = subprocess.run(
    [
      *(sys.executable, "-m", f"nps_jax.{module}", "--config=folde"),
      *(["--out=out"] if module == "sweep" else ["--workdir=out", "--config.seed=1"]),
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1 and done.stdout == ""
  assert done.stderr == (
    "Error: The flags cannot be read: flag --config=folde: There is no file folde; "
    f"give --config=FILE.py or a name: {METHOD}.\n"
  )
  assert not any(here.iterdir())


def test_the_config_that_is_chosen_has_its_variant_s_fields(here):
  values, argv = flags.FlagValues(), ["command", "--config=loco"]
  argv += ["--config.variant=paper", "--config.codebook.groups=2"]
  console.define_config(values, argv)
  console.read(argv, values)
  config = console.chosen("config", values)
  assert config.codebook.groups == 2
  assert config.scoring.fusion == settings.PAPER["scoring.fusion"] == "equal"


def test_listening_shows_our_info_and_of_others_only_warnings(monkeypatch):
  logger = absl_logging.get_absl_logger()
  before = absl_logging.get_verbosity()
  monkeypatch.setattr(logger, "filters", [])
  ours = str(pathlib.Path(console.__file__).parent / "data" / "folder.py")

  def shown(level, path):
    record = logging.LogRecord("absl", level, path, 1, "words", None, None)
    return bool(logger.filter(record))

  assert shown(logging.INFO, "/lib/orbax/manager.py")
  try:
    console.listen()
    assert absl_logging.get_verbosity() == absl_logging.INFO
  finally:
    absl_logging.set_verbosity(before)
  assert shown(logging.INFO, ours)
  assert not shown(logging.INFO, "/lib/orbax/manager.py")
  assert shown(logging.WARNING, "/lib/orbax/manager.py")


def test_no_name_ends_a_command_on_an_old_console(monkeypatch):
  shown = io.BytesIO()
  stream = io.TextIOWrapper(shown, encoding="cp1252", errors="strict")
  monkeypatch.setattr("sys.stdout", stream)
  logger = absl_logging.get_absl_logger()
  monkeypatch.setattr(logger, "filters", [])
  before = absl_logging.get_verbosity()
  try:
    console.listen()
  finally:
    absl_logging.set_verbosity(before)
  print("größe 日")
  stream.flush()
  assert shown.getvalue().split() == ["größe".encode("cp1252"), b"\\u65e5"]


def test_warnings_on_odd_image_files_are_not_shown(monkeypatch):
  monkeypatch.setattr(absl_logging.get_absl_logger(), "filters", [])
  before = absl_logging.get_verbosity()
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    try:
      console.listen()
    finally:
      absl_logging.set_verbosity(before)
    warnings.warn_explicit("odd", UserWarning, "x.py", 1, "PIL.TiffImagePlugin")
    warnings.warn_explicit("ours", UserWarning, "y.py", 1, "nps_jax.trainer")
  assert [str(each.message) for each in caught] == ["ours"]
