"""Many runs: what is run, skipped, refused, survived and written."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

from absl import flags as absl_flags
from ml_collections import config_flags
import pytest
import runs

from nps_jax import sweep
from nps_jax.drawn import synthetic
from nps_jax.runs import provenance
from nps_jax.study import plan
from nps_jax.study import runner

# Of ml_collections, as it loads the config's file.
pytestmark = pytest.mark.filterwarnings("ignore:.*load_module:DeprecationWarning")

LOCO = runs.CONFIGS / "loco.py"
# Stands for a training: does what it is told, then writes what a training does.
FAKE = """
import hashlib, json, os, pathlib, signal, sys, time
folder, held = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
text = json.dumps(held["description"])
(folder / "config.json").write_text(text)
line = hashlib.sha256(text.encode()).hexdigest() + "  config.json\\n"
(folder / "config.sha256").write_text(line)
exec(held["first"])
(folder / "calibration.npz").touch()
(folder / "results.json").write_text(json.dumps(held["rows"]))
"""


def row(category, logical, structural):
  image = {"logical": logical, "structural": structural, "pooled": 0.5}
  image["mean"] = (logical + structural) / 2
  region = {"mean": {"0.05": 0.25}}
  return {"category": category, "image_auroc": image, "au_spro": region, "au_pro": None}


class Fake:
  """Replaces runner.command; remembers which runs were started."""

  def __init__(self):
    self.command = runner.command
    self.started = []
    self.taken = {}  # by the run's name: that of the run whose training it takes
    self.first = {}  # by the run's name: Python that is run before the results
    self.logical = {}  # by the run's name

  def __call__(self, run, done):
    self.started.append(run.name)
    last = self.command(run, done)[-1]
    if last.startswith("--trained="):
      root = str(run.folder).removesuffix(run.name)
      self.taken[run.name] = last.removeprefix(f"--trained={root}")
    description = {
      "config": run.config.to_dict(),
      "categories": run.categories,
      "deepest": 5,
      "encoder": {},
      "images": "",
    }
    rows = [row(name, self.logical.get(run.name, 0.5), 1.0) for name in run.categories]
    held = {"description": description, "rows": rows}
    held["first"] = self.first.get(run.name, "")
    return [sys.executable, "-S", "-c", FAKE, str(run.folder), json.dumps(held)]


@pytest.fixture
def fake(monkeypatch):
  held = Fake()
  monkeypatch.setattr(runner, "command", held)
  return held


@pytest.fixture
def flags(tmp_path):
  """Of a sweep of two variants over the categories a and b, seeds 0 and 1."""
  for name in ("a", "b"):
    (tmp_path / "data" / name / "train").mkdir(parents=True)
  file = write_variants(tmp_path, {"default": {}, "small": {"codebook.size": 64}})
  return [
    *(f"--config={LOCO}", f"--config.data.root={tmp_path / 'data'}", "--seeds=0,1"),
    *(f"--variants={file}", f"--out={tmp_path / 'out'}"),
  ]


def write_variants(folder, held):
  file = folder / "held.py"
  file.write_text(f"def get_variants():\n  return {held!r}\n", encoding="utf-8")
  return file


def stored(tmp_path):
  return json.loads((tmp_path / "out" / "sweep.json").read_text(encoding="utf-8"))


def parsed(texts):
  """The config that nps_jax.train would have under these flags."""
  held = absl_flags.FlagValues()
  argv = ["train", *texts]
  config_flags.DEFINE_config_file("config", None, "", flag_values=held, sys_argv=argv)
  assert held(argv) == ["train"]
  return held["config"].value


def test_every_run_has_its_folder_and_the_table_their_numbers(
  fake, flags, tmp_path, capsys
):
  fake.logical = {"small/a/seed0": 0.75, "small/a/seed1": 1.0, "small/b/seed0": 0.25}
  sweep.main(flags)
  names = [f"{v}/{c}/seed{s}" for v in ("default", "small") for c in "ab" for s in "01"]
  assert fake.started == names
  found = stored(tmp_path)
  assert [run["name"] for run in found["runs"]] == names
  assert found["seeds"] == [0, 1] and found["categories"] == ["a", "b"]
  assert found["command"] == ["python", "-m", "nps_jax.sweep", *flags]
  assert found["variants"]["small"] == {"codebook.size": 64}
  lines = {(line["variant"], line["category"]): line for line in found["summary"]}
  figure = lines["small", "a"]["metrics"]["image_auroc.logical"]
  assert figure["values"] == [0.75, 1.0] and figure["mean"] == 0.875
  assert figure["sd"] == pytest.approx(0.125 * 2**0.5)
  # Seed 0: (0.75 + 0.25) / 2; seed 1: (1 + 0.5) / 2.
  assert lines["small", "(mean)"]["metrics"]["image_auroc.logical"]["mean"] == 0.625
  text = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
  assert "| small | 87.5 ± 17.7 | 100.0 ± 0.0 | 93.8 ± 8.8 | 50.0 ± 0.0 |" in text
  assert text in capsys.readouterr().out
  assert (tmp_path / "out" / "sweep.csv").read_text().count("\n") == 1 + 2 * 3
  (first, *_) = found["runs"]
  assert first["started"]["command"][4] == str(tmp_path / "out" / "default/a/seed0")
  assert first["results"]["a"] == row("a", 0.5, 1.0)


def test_what_is_done_is_not_run_again(fake, flags, tmp_path):
  sweep.main([*flags, "--only=small"])
  assert len(fake.started) == 4
  before = (tmp_path / "out/small/a/seed0/results.json").stat().st_mtime_ns
  sweep.main([*flags, "--config.train.log_every=7", "--config.data.threads=1"])
  assert fake.started[4:] == [f"default/{c}/seed{s}" for c in "ab" for s in "01"]
  assert (tmp_path / "out/small/a/seed0/results.json").stat().st_mtime_ns == before
  # What --only leaves out is still shown.
  sweep.main([*flags, "--only=small"])
  assert len(fake.started) == 8
  assert list(stored(tmp_path)["variants"]) == ["default", "small"]
  # What is wrong with it is no failure of this sweep.
  for path in (tmp_path / "out" / "default").rglob("config.json"):
    path.write_text("{")
  sweep.main([*flags, "--only=small"])
  assert list(stored(tmp_path)["variants"]) == ["small"] and len(fake.started) == 8


def test_the_command_itself_reads_what_is_done_and_starts_no_device(
  fake, flags, tmp_path
):
  sweep.main(flags)
  done = subprocess.run(
    [sys.executable, "-m", "nps_jax.sweep", *flags],
    env=os.environ | {"JAX_PLATFORMS": "nowhere"},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "8 runs are done, 0 to do." in done.stderr
  assert (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8") in done.stdout


def test_a_failed_run_is_reported_after_all_the_others(fake, flags, tmp_path):
  words = "print('early'); [print(k) for k in range(20)]; sys.exit('no weights')"
  fake.first = {
    "default/a/seed1": words,
    "default/b/seed0": "os.kill(os.getpid(), signal.SIGKILL)",
    "small/a/seed0": "os._exit(0)",
  }
  with pytest.raises(SystemExit) as caught:
    sweep.main(flags)
  message = str(caught.value.code)
  assert message.startswith("Error: 3 runs failed.\ndefault/a/seed1: ended with exit ")
  assert "exit status 1; " in message and "train.log ends:\n" in message
  assert "    19\n    no weights\n" in message and "early" not in message
  assert "default/b/seed0: ended with SIGKILL;" in message
  assert re.search(r"small/a/seed0: ended without .*results\.json; see", message)
  assert len(fake.started) == 8
  found = stored(tmp_path)
  assert [run["name"] for run in found["runs"] if run["failure"]] == list(fake.first)
  text = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
  assert "| default | 50.0 (1 of 2) |" in text and "Failed: default/b/seed0." in text
  fake.first = {}
  sweep.main(flags)
  assert fake.started[8:] == ["default/a/seed1", "default/b/seed0", "small/a/seed0"]
  assert "(1 of 2)" not in (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")


def test_a_run_with_other_settings_is_reported_and_left_alone(fake, flags, tmp_path):
  flags += ["--seeds=0", "--categories=a"]
  sweep.main(flags)
  folder = tmp_path / "out/default/a/seed0"
  before = {each: each.read_bytes() for each in folder.iterdir()}
  (tmp_path / "out/small/a/seed0/results.json").unlink()
  fake.started.clear()
  with pytest.raises(SystemExit, match=r"Error: 2 runs failed") as caught:
    sweep.main([*flags, "--config.train.steps=5", "--config.encoder.levels=(3,)"])
  message = str(caught.value.code)
  assert f"{folder} holds a run with other settings:\n  " in message
  assert "config.train.steps: 20000 there, 5 asked for" in message
  assert "config.encoder.levels: (2, 3, 4) there, (3,) asked for" in message
  assert "Use another --out" in message
  assert {each: each.read_bytes() for each in folder.iterdir()} == before
  assert fake.started == []
  # Half a run of other settings is not touched either; one of these is gone on with.
  sweep.main(flags)
  assert fake.started == ["small/a/seed0"]


def test_places_are_compared_as_paths(fake, flags, tmp_path, monkeypatch):
  flags += ["--seeds=0", "--categories=a", "--only=default"]
  sweep.main(flags)
  monkeypatch.chdir(tmp_path)
  sweep.main([*flags, "--config.data.root=data"])
  (tmp_path / "data" / "a").rename(tmp_path / "a")
  with pytest.raises(SystemExit, match=r"data\.root: '.*data' there, '\.' asked for"):
    sweep.main([*flags, "--config.data.root=."])
  with pytest.raises(SystemExit, match=r"encoder\.weights: 'hub' there, 'other\.saf"):
    sweep.main(
      [*flags, "--config.data.root=.", "--config.encoder.weights=other.safetensors"]
    )
  assert len(fake.started) == 1


@pytest.mark.parametrize(
  ("file", "content", "message"),
  [
    ("config.json", None, r"has no config\.json beside it, so its settings are unkn"),
    ("config.json", "{", r"cannot be read: ValueError\(.*json is damaged: its SHA-256"),
    ("config.sha256", None, r"cannot be read: FileNotFoundError\(.*sha256 is missing"),
    ("results.json", "[", "cannot be read: JSONDecodeError"),
    ("results.json", "[3]", "cannot be read: TypeError"),
    ("results.json", "[]", r"has no results of a; a category needs test images"),
  ],
)
def test_damaged_folders_are_failures(fake, flags, tmp_path, file, content, message):
  flags += ["--seeds=0", "--categories=a", "--only=default"]
  sweep.main(flags)
  path = tmp_path / "out/default/a/seed0" / file
  path.unlink()
  if content is not None:
    path.write_text(content)
  with pytest.raises(SystemExit, match=message):
    sweep.main(flags)
  assert len(fake.started) == 1


def test_an_interrupted_training_stops_the_sweep_which_goes_on_later(
  fake, flags, tmp_path
):
  fake.first["default/b/seed0"] = "sys.exit(75)"
  with pytest.raises(SystemExit) as caught:
    sweep.main(flags)
  assert caught.value.code == 75
  assert fake.started == ["default/a/seed0", "default/a/seed1", "default/b/seed0"]
  found = stored(tmp_path)
  assert [run["name"] for run in found["runs"]] == fake.started[:2]
  assert not any(run["failure"] for run in found["runs"])
  fake.first.clear()
  sweep.main(flags)
  assert fake.started[3] == "default/b/seed0" and len(fake.started) == 3 + 6


@pytest.mark.parametrize("sent", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interruption_reaches_the_run_once_and_waits_for_it(
  heard, fake, flags, tmp_path, capsys, sent
):
  saved = tmp_path / "saved"
  fake.first["default/a/seed0"] = f"""
def save(*_):
  with open({str(saved)!r}, "a") as file:
    file.write("once ")
  time.sleep(0.5)  # a checkpoint takes its time
  with open({str(saved)!r}, "a") as file:
    file.write("whole")
  sys.exit(75)
assert os.getpgid(0) == os.getpid() != os.getpgid(os.getppid())
signal.signal(signal.SIGTERM, save)
os.kill(os.getppid(), signal.{sent})
time.sleep(60)
"""
  before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
  with pytest.raises(SystemExit) as caught:
    sweep.main(flags)
  assert caught.value.code == 75
  assert saved.read_text() == "once whole"
  assert "the same command goes on from here" in capsys.readouterr().err
  assert before == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
  assert fake.started == ["default/a/seed0"] and stored(tmp_path)["runs"] == []


def test_a_second_interruption_kills_the_run(heard, fake, flags, tmp_path):
  pid = tmp_path / "pid"
  fake.first["default/a/seed0"] = f"""
signal.signal(signal.SIGTERM, lambda *_: os.kill(os.getppid(), signal.SIGINT))
pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))
os.kill(os.getppid(), signal.SIGINT)
time.sleep(60)
"""
  with pytest.raises(SystemExit) as caught:
    sweep.main(flags)
  assert caught.value.code == 75
  with pytest.raises(ProcessLookupError):
    os.kill(int(pid.read_text()), 0)


def test_variants_of_the_same_settings_share_their_runs(fake, flags, tmp_path):
  held = {"default": {}, "small": {"codebook.size": 64}, "like": {"codebook.size": 512}}
  write_variants(tmp_path, held)
  sweep.main([*flags, "--only=like"])
  assert fake.started == [f"default/{c}/seed{s}" for c in "ab" for s in "01"]
  found = stored(tmp_path)
  assert found["runs_of"] == {"default": "default", "like": "default"}
  lines = {(each["variant"], each["category"]): each for each in found["summary"]}
  assert lines["like", "a"]["metrics"] == lines["default", "a"]["metrics"]
  text = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
  assert "like has the same settings as default, and shares its runs." in text


def test_runs_of_another_scoring_take_the_training_that_is_done(fake, flags, tmp_path):
  held = {
    "small": {"codebook.size": 64},
    "default": {},
    "peak": {"scoring.image": "top1"},
    "memory": {"codebook.memory": 0.0, "scoring.maps": ("reconstruction",)},
    "small-peak": {"codebook.size": 64, "scoring.image": "top1"},
  }
  write_variants(tmp_path, held)
  fake.first = {"default/a/seed1": "sys.exit(1)"}
  with pytest.raises(SystemExit, match="1 runs failed"):
    sweep.main([*flags, "--rivals"])
  start = {name: "default" for name in ("peak", "memory")} | {"small-peak": "small"}
  want = {
    f"{name}/{category}/seed{seed}": f"{first}/{category}/seed{seed}"
    for name, first in start.items()
    for category in "ab"
    for seed in (0, 1)
  }
  del want["peak/a/seed1"]
  assert fake.taken == want | {"memory/a/seed1": "peak/a/seed1"}
  fake.first = {}
  (tmp_path / "out" / "peak" / "a" / "seed1" / "calibration.npz").unlink()
  sweep.main([*flags, "--rivals"])
  assert fake.taken["default/a/seed1"] == "memory/a/seed1"


@pytest.mark.parametrize("named", [None, "elsewhere"])
def test_runs_share_what_they_compile(fake, flags, tmp_path, monkeypatch, named):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
  if named:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", named)
  held = tmp_path / "held"
  text = (
    f"open({str(held)!r}, 'a').write(os.environ['JAX_COMPILATION_CACHE_DIR'] + ' ')"
  )
  fake.first = {f"default/{each}/seed0": text for each in "ab"}
  sweep.main([*flags, "--seeds=0", "--only=default"])
  assert held.read_text().split() == [named or str(tmp_path / "out/.compiled")] * 2


def test_parts_share_the_runs_and_the_tables_come_of_all(fake, flags, tmp_path, capsys):
  units = [f"{category}/seed{seed}" for seed in "01" for category in "ab"]
  out = tmp_path / "out"
  for at, own in enumerate((units[::3], units[1::3], units[2::3])):
    before = len(fake.started)
    sweep.main([*flags, f"--part={at}/3"])
    assert fake.started[before:] == [
      f"{variant}/{unit}" for variant in ("default", "small") for unit in sorted(own)
    ]
    assert not list(out.glob("sweep.*"))
    assert "--tables" in capsys.readouterr().out
  (out / "small/a/seed1/results.json").unlink()
  sweep.main([*flags, "--tables"])
  assert len(fake.started) == 8
  lines = {
    (line["variant"], line["category"]): line for line in stored(tmp_path)["summary"]
  }
  assert lines["default", "a"]["seeds"] == [0, 1]
  assert lines["small", "a"]["seeds"] == [0]


def test_a_part_takes_over_the_training_of_its_own(fake, flags, tmp_path):
  write_variants(tmp_path, {"default": {}, "peak": {"scoring.image": "top1"}})
  sweep.main([*flags, "--part=3/4"])
  assert fake.started == ["default/b/seed1", "peak/b/seed1"]
  assert fake.taken == {"peak/b/seed1": "default/b/seed1"}


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (["--part=2/2"], "'2/2': parts of 2 count from 0 on"),
    (["--part=1"], "'1': expected K/N, such as 0/5"),
    (["--part=-1/2"], "expected K/N"),
    (["--part=0/2", "--tables"], "not allowed with argument --part"),
    (["--ahead", "--tables"], "not allowed with argument --ahead"),
  ],
)
def test_wrong_parts_are_refused(fake, flags, capsys, words, message):
  with pytest.raises(SystemExit, match="2"):
    sweep.main([*flags, *words])
  assert message in capsys.readouterr().err and fake.started == []


def test_ahead_loads_what_is_asked_for_and_trains_nothing(
  fake, flags, tmp_path, clip, capsys
):
  cache = tmp_path / "cache"
  held = {"default": {}, "plain": {"context.source": "none"}}
  write_variants(tmp_path, held | {"other": {"encoder.weights": "hub"}})
  given = ["--config.encoder.name=resnet18", "--config.encoder.weights=random"]
  given += [f"--config.context.model={clip}", f"--config.context.cache={cache}"]
  sweep.main([*flags, *given, "--only=default,plain", "--ahead"])
  assert fake.started == [] and not (tmp_path / "out").exists()
  lines = capsys.readouterr().out.splitlines()
  assert lines[0].startswith("Encoder: name resnet18, file random, sha256 ")
  assert lines[1:] == [
    *(f"Context of {name}: clip, of 8 values" for name in "ab"),
    *(f"Context of {name}: none" for name in "ab"),
  ]
  # What the trainings will look for: a category's vector, in a file of its own.
  assert len(list(cache.iterdir())) == 2
  for path in clip.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  with pytest.raises(SystemExit, match=r"Error: .*no/such.*"):
    sweep.main([*flags, *given, "--config.context.model=no/such", "--ahead"])


def test_unified_trains_one_model_with_a_row_for_each_category(fake, flags, tmp_path):
  sweep.main([*flags, "--unified", "--only=small", "--seeds=4"])
  assert fake.started == ["small/unified/seed4"]
  found = stored(tmp_path)
  assert [line["category"] for line in found["summary"]] == ["(mean)", "a", "b"]
  assert list(found["runs"][0]["results"]) == ["a", "b"]
  (run,) = plan.make([*flags, "--unified", "--only=small", "--seeds=4"]).runs[1:]
  assert "--config.data.category=a,b" in run.command


def test_flags_are_passed_on_and_give_the_settings_that_were_planned(flags, tmp_path):
  held = {"default": {}, "deep": {"encoder.levels": (4,), "scoring.smoothing": 0}}
  write_variants(tmp_path, held)
  given = ["--config.encoder.levels=(2,3)", "--config.context.templates=('a {}','{}')"]
  given += ["--config.train.steps", "9", "--noconfig.codebook.enabled"]
  found = plan.make([*flags, *given]).runs
  assert len(found) == 8
  for run in found:
    assert run.command[0] == "nps_jax.train"
    config = parsed(run.command[1:])
    assert config == run.config and config.is_locked
    assert config.train.steps == 9 and not config.codebook.enabled
    assert config.context.templates == ("a {}", "{}")
    assert run.name == f"{run.variant}/{config.data.category}/seed{config.seed}"
    deep = run.variant == "deep"
    assert config.encoder.levels == ((4,) if deep else (2, 3))
    assert config.scoring.smoothing == (0.0 if deep else 4.0)
  words = runner.command(found[0], ())
  assert words[:2] == [sys.executable, "-m"]
  assert tuple(words[2:-1]) == found[0].command
  assert words[-1] == f"--workdir={tmp_path / 'out/default/a/seed0'}"


def test_rivals_have_runs_of_their_own_beside_the_variants(fake, flags, tmp_path):
  sweep.main([*flags, "--rivals", "--seeds=0", "--categories=a"])
  names = ["default", "small", "patch-memory", "pooled-gaussian"]
  assert fake.started == [f"{name}/a/seed0" for name in names]
  assert [line["variant"] for line in stored(tmp_path)["summary"]] == names
  runs_of = {run.variant: run for run in plan.make([*flags, "--rivals"]).runs}
  for name in names[2:]:
    words = runs_of[name].command
    assert words[:2] == ("nps_jax.study.rivals", f"--rival={name}")
    assert parsed(words[2:]) == runs_of[name].config
    assert words[2:-1] == runs_of["default"].command[1:-1]


def test_drawn_data_are_drawn_once_for_all_variants(fake, tmp_path, monkeypatch):
  write, drawn = synthetic.write, []

  def small(root, categories, *, seed, size):
    drawn.append((*categories, seed))
    write(root, categories, seed=seed, size=size, counts=runs.COUNTS)

  monkeypatch.setattr(runner.synthetic, "write", small)
  held = {"fine": {"image_size": 96}, "default": {}}
  flags = [
    *(f"--config={runs.CONFIGS / 'synthetic.py'}", "--config.image_size=32"),
    *(f"--variants={write_variants(tmp_path, held)}", f"--out={tmp_path / 'out'}"),
    *("--categories=tray", "--seeds=0,5"),
  ]
  sweep.main(flags)
  assert len(fake.started) == 4 and drawn == [("tray", 0), ("tray", 5)]
  roots = {run.seed: run.config.data.root for run in plan.make(flags).runs}
  assert roots == {seed: str(tmp_path / f"out/data/seed{seed}") for seed in (0, 5)}
  images = [pathlib.Path(root) / "tray/train/good/000.png" for root in roots.values()]
  assert images[0].read_bytes() != images[1].read_bytes()
  with runner.Image.open(images[0]) as image:
    assert image.size == (32, 32)  # of the sweep's config, though "fine" came first
  assert plan.make([*flags, "--categories=all"]).categories == synthetic.CATEGORIES
  write_variants(tmp_path, {"other": {"image_size": 128}})
  with pytest.raises(SystemExit, match=r"was drawn at 32 pixels, .*image_size is 64"):
    sweep.main([*flags, "--config.image_size=64"])
  assert len(fake.started) == 4


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (["--categories=c"], r"The category is 'c'; .* has a, b\."),
    (["--categories=,"], "The category is ','"),
    (["--only=smal"], r"--only is 'smal'; there are default, small.*mean 'small'"),
    (["--only="], r"--only is ''; there are default, small\."),
    (["--variants=lost.py"], r"There is no file lost\.py; give --variants=FILE"),
    (["--config.codebook.sise=3"], 'Did you mean "size"'),
    (["--config.codebook.size=few"], r"codebook\.size=few: invalid literal"),
    (["--config.codebook.size=0"], r"config\.codebook\.size is 0; expected 1 or more"),
    (["--confg=3"], "Unknown command line flag 'confg'"),
    (["--config=lost.py"], r"There is no file lost\.py; give --config=FILE\.py or a n"),
    (["--config=pretrain"], "a config of something else: it has no checkpoint"),
    (["--config.seed=3"], r"--config\.seed is given; a sweep has --seeds for that"),
    (["--config.data.category=a"], "a sweep has --categories for that"),
    (["--config.data.root="], r"config\.data\.root is empty\. Give --config\.data\.r"),
    (["--config.data.root=lost"], "The data folder lost does not exist"),
    (["a"], r"Unexpected arguments: \['a'\]"),
  ],
)
def test_wrong_requests_are_refused_before_anything_runs(
  fake, flags, tmp_path, changes, message
):
  with pytest.raises(SystemExit, match=message):
    sweep.main([*flags, *changes])
  assert fake.started == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize("seeds", ["", "0,", "one", "-1", "0.5", "0,1,0", "1,01"])
def test_seeds_are_whole_numbers_each_once(fake, flags, tmp_path, seeds, capsys):
  with pytest.raises(SystemExit) as caught:
    sweep.main([*flags, f"--seeds={seeds}"])
  assert caught.value.code == 2 and fake.started == []
  said = capsys.readouterr().err
  assert "has a seed twice" in said or "expected whole numbers from 0 on" in said


def test_a_config_and_a_folder_are_needed(flags, tmp_path):
  with pytest.raises(ValueError, match=r"--config is missing; give a file of configs/"):
    plan.make([each for each in flags if not each.startswith("--config")])
  (tmp_path / "out").write_text("a file")
  with pytest.raises(ValueError, match=r"out is a file; expected a folder, new or not"):
    plan.make(flags)
  with pytest.raises(ValueError, match=r"is 'cup'; products drawn: tray, bottle, bag,"):
    config = runs.CONFIGS / "synthetic.py"
    plan.make([f"--config={config}", "--categories=cup", f"--out={tmp_path / 'new'}"])


def test_runs_of_different_states_of_the_package_are_told(
  fake, flags, tmp_path, monkeypatch
):
  flags += ["--categories=a", "--only=default"]
  for seeds, commit in (("0", "old"), ("0,1", "new")):
    state = {"version": "1", "commit": commit}
    monkeypatch.setattr(provenance, "package", lambda state=state: state)
    sweep.main([*flags, f"--seeds={seeds}"])
  text = (tmp_path / "out" / "sweep.md").read_text(encoding="utf-8")
  assert "different states of the package" in text
  assert '"commit": "old"' in text and '"commit": "new"' in text


@pytest.mark.slow
def test_two_real_trainings_end_in_one_table(root, tmp_path, monkeypatch):
  """The config as it is, with another score, and the paper's form, at tests' size."""
  # One device; the second run finds the first one's compiled functions.
  one = os.environ["XLA_FLAGS"].replace("device_count=8", "device_count=1")
  monkeypatch.setenv("XLA_FLAGS", one)
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
  monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
  light = runs.overrides(
    root,
    image_size=32,
    train__steps=2,
    train__feature_cache=0.0,
    encoder__levels="(4,)",
    encoder__deepest=4,
    structural__enabled=False,
    codebook__parts=0,
  )
  light = [each for each in light if not each.startswith("--config.data.category")]
  flags = [
    *(f"--config={runs.CONFIGS / 'synthetic.py'}", *light),
    *(f"--variants={runs.CONFIGS / 'ablation.py'}", "--only=default,image-top1,paper"),
    *(f"--out={tmp_path / 'out'}", "--seeds=3", "--categories=tray"),
  ]
  sweep.main(flags)
  found = stored(tmp_path)
  lines = {line["variant"]: line["metrics"] for line in found["summary"]}
  names = [run["name"] for run in found["runs"]]
  variants = {"default": "max", "image-top1": "top1", "paper": "max"}
  assert names == [f"{name}/tray/seed3" for name in variants]
  for variant, image in variants.items():
    folder = tmp_path / "out" / variant / "tray" / "seed3"
    (results,) = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["steps"] == 2
    for name, want in (
      ("image_auroc.pooled", results["image_auroc"]["pooled"]),
      ("au_spro.mean.0.05", results["au_spro"]["mean"]["0.05"]),
    ):
      assert lines[variant][name] == {"mean": want, "sd": None, "values": [want]}
    held = json.loads((folder / "config.json").read_text(encoding="utf-8"))["config"]
    assert (held["seed"], held["data"]["category"]) == (3, "tray")
    assert held["scoring"]["image"] == image
    log = (folder / runner.LOG).read_text(encoding="utf-8")
    assert "Calibrating tray" in log
    assert ("train: 100%" in log) == (variant != "image-top1")
  times = [each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("results.json")]
  sweep.main(flags)
  assert times == [
    each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("results.json")
  ]
