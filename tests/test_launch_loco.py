"""launch/loco.sh: steps in order, resumed, on one device, several, or under SLURM."""

import signal
import time

import launching
import pytest

LOCO = "breakfast_box,juice_bottle,pushpins,screw_bag,splicing_connectors"
STEPS = "--config.train.steps=20"
SWEEP = (
  ".venv/bin/python -m nps_jax.sweep --config=configs/loco.py "
  "--variants=configs/ablation.py --only=default,paper,no-decoders "
  f"--categories={LOCO} --seeds=0,1,2 --out=runs/mvtec_loco "
  "--config.data.root=data/mvtec_loco"
)
FETCH = ".venv/bin/python -m nps_jax.data.fetch --name=mvtec_loco --out=data/mvtec_loco"
SMALL = {"CATEGORIES": "a,b", "SEEDS": "0,1", "VARIANTS": "default", "DATA": "data"}
JOB = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3", "SLURM_JOB_ID": "9"}

pytestmark = pytest.mark.usefixtures("heard")


@pytest.fixture
def place(tmp_path):
  return launching.Place(tmp_path)


def commands(lines):
  """Without the lines that are for readers."""
  return [line for line in lines if not line.startswith("#")]


def sweeps(place):
  """The sweeps so far, by what ends their command."""
  calls = place.calls("python")
  return [call[-1] for call in calls if call[2] == "nps_jax.sweep"]


def test_every_step_is_printed_in_order(place):
  lines = place.dry("loco.sh", STEPS, settings={"ACCEPT_LICENCE": "1"})
  sweep = f"{SWEEP} {STEPS}"
  assert commands(lines) == [f"{FETCH} --accept-licence", f"{sweep} --ahead", sweep]
  assert lines[0] == (
    "# mvtec_loco: 5 categories x 3 seeds, and of each the variants "
    "default,paper,no-decoders."
  )
  assert [line[:4] for line in lines if line[2:3].isdigit()] == ["# 1.", "# 2.", "# 3."]
  assert "6.1 GB" in lines[1]
  # There is no interpreter yet, so nothing can be measured.
  assert lines[-1].endswith("&& .venv/bin/python -m pip install -e '.[cuda12]'")


def test_hours_and_memory_are_measured_where_that_is_possible(place):
  assert place.run("local.sh")[0] == 0  # makes .venv
  settings = SMALL | {"GPUS": "2", "EXPECTED": "two hours"}
  before = len(place.calls())
  code, out, err = place.run("loco.sh", "--dry-run", STEPS, settings=settings)
  assert (code, err) == (0, "") and out.splitlines()[-1] == "# two hours"
  assert place.calls()[before:] == [
    [
      *("python", "-m", "nps_jax.study.expected", "--config=configs/loco.py"),
      *("--variants=configs/ablation.py", "--only=default", "--runs=4", "--at-once=2"),
      *("--counts=356,61,314", "--pixels=1280x1600", STEPS),
    ]
  ]
  code, out, err = place.run("loco.sh", "--dry-run", settings=SMALL)
  assert (code, err) == (0, "")
  assert out.splitlines()[-2:] == ["# Error: no", "# So the hours are not known."]


def test_the_licence_is_the_user_s_to_accept(place):
  lines = place.dry("loco.sh")
  assert commands(lines)[0] == FETCH
  assert "Without ACCEPT_LICENCE=1 this only shows the licence" in "\n".join(lines)
  code, _, _ = place.run("loco.sh", settings={"FETCH_CODE": "1"})
  assert code == 1 and sweeps(place) == []


def test_images_that_are_there_are_not_fetched(place):
  (place.repository / "data" / "mvtec_loco").mkdir(parents=True)
  lines = place.dry("loco.sh")
  assert "# 1. The images are in data/mvtec_loco." in lines
  assert commands(lines) == [f"{SWEEP} --ahead", SWEEP]


def test_another_data_set_is_a_setting(place):
  lines = commands(place.dry("loco.sh", settings={"DATASET": "mvtec_ad"}))
  assert "--name=mvtec_ad --out=data/mvtec_ad" in lines[0]
  words = launching.words(lines)[-1]
  assert {"--config=configs/mvtec_ad.py", "--out=runs/mvtec_ad"} <= set(words)
  (names,) = [word for word in words if word.startswith("--categories=")]
  names = names.partition("=")[2].split(",")
  assert len(set(names)) == 15 and {"bottle", "tile", "zipper"} <= set(names)


def test_the_settings_reach_the_commands(place):
  chosen = SMALL | {"CONFIG": "configs/synthetic.py", "OUT": "/o", "DATA": "/my data"}
  (_, _, line) = commands(place.dry("loco.sh", settings=chosen))
  assert launching.words([line])[0][3:] == [
    *("--config=configs/synthetic.py", "--variants=configs/ablation.py"),
    *("--only=default", "--categories=a,b", "--seeds=0,1", "--out=/o"),
    "--config.data.root=/my data",
  ]


def test_the_run_does_what_was_printed_and_goes_on(place):
  settings = SMALL | {"ACCEPT_LICENCE": "1"}
  lines = launching.words(commands(place.dry("loco.sh", STEPS, settings=settings)))
  code, _, err = place.run("loco.sh", STEPS, settings=settings | {"CODE": "75"})
  assert (code, err) == (75, "")
  pip, *calls = place.calls("python")
  assert pip[-1] == ".[cuda12]"
  assert calls == [["python", *line[1:]] for line in lines]
  assert place.run("loco.sh", STEPS, settings=settings)[0] == 0
  assert place.calls("python")[4:] == calls[1:]  # neither installed nor fetched again


def test_nothing_is_trained_without_weights(place):
  code, _, _ = place.run("loco.sh", settings=SMALL | {"AHEAD_CODE": "1"})
  assert code == 1 and sweeps(place) == ["--ahead"]


def test_each_gpu_has_a_part_and_the_table_comes_last(place):
  settings = SMALL | {"GPUS": "2"}
  lines = commands(place.dry("loco.sh", settings=settings))
  assert lines[2].startswith("CUDA_VISIBLE_DEVICES=0 .venv/bin/python -m nps_jax.sweep")
  assert lines[3].startswith("CUDA_VISIBLE_DEVICES=1 .venv/bin/python -m nps_jax.sweep")
  ends = ["--part=0/2 &", "--part=1/2 &", "wait", "--tables"]
  assert [line[-len(end) :] for line, end in zip(lines[2:], ends, strict=True)] == ends
  assert place.run("loco.sh", settings=settings)[0] == 0
  first, *middle, last = sweeps(place)
  assert (first, last) == ("--ahead", "--tables")
  assert sorted(middle) == ["--part=0/2", "--part=1/2"]
  assert sorted(call[1] for call in place.calls("gpu")) == ["0", "1"]
  out = place.repository / "runs" / "mvtec_loco"
  assert {log.name for log in out.iterdir()} == {"part0.log", "part1.log"}


def test_devices_are_those_that_may_be_seen(place):
  settings = SMALL | {"GPUS": "2", "CUDA_VISIBLE_DEVICES": "4,GPU-6,7"}
  assert place.run("loco.sh", settings=settings)[0] == 0
  assert sorted(call[1] for call in place.calls("gpu")) == ["4", "GPU-6"]
  code, _, err = place.run("loco.sh", settings=settings | {"GPUS": "4"})
  assert code == 2
  assert err == "GPUS is 4, and CUDA_VISIBLE_DEVICES lists fewer: 4,GPU-6,7.\n"


def test_a_part_that_fails_leaves_the_others_and_the_table(place):
  settings = SMALL | {"GPUS": "2", "FAILS": "0/2"}
  assert place.run("loco.sh", settings=settings)[0] == 3
  assert len(sweeps(place)) == 4 and sweeps(place)[-1] == "--tables"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interruption_reaches_every_part_once_and_waits(place, number):
  (place.state / "hang").touch()
  process = place.start("loco.sh", settings=SMALL | {"GPUS": "2"})
  place.wait_for(lambda: place.calls("started") == [["started"]] * 2)
  time.sleep(0.1)  # until both are in their loop, and the script waits for them
  assert launching.end(process, number)[0] == 75
  for word in ("saved", "ended"):
    assert place.calls(word) == [[word]] * 2
  assert place.calls("interrupted") == []
  assert sweeps(place)[-1] != "--tables"


def test_an_array_has_a_task_for_each_category_and_seed_and_then_the_table(place):
  settings = SMALL | {"SLURM": "1", "OUT": "/o", "TIME": "30", "PLACES": "0 1 2 3"}
  settings["OUT"] = str(place.state / "out")
  lines = launching.words(commands(place.dry("loco.sh", STEPS, settings=settings)))
  assert [line[0] for line in lines[2:]] == ["sbatch", "sbatch"]
  assert {"--array=0-3", "--time=30", "--signal=TERM@120", "--requeue"} <= {*lines[2]}
  at = lines[2].index("launch/loco.sh")
  assert lines[2][at + 1 : at + 4] == ["--task", "4", "srun"]
  assert place.run("loco.sh", STEPS, settings=settings)[0] == 0
  submitted, afterwards = place.calls("sbatch")
  assert submitted == lines[2]
  assert afterwards == ["sbatch", "--dependency=afterany:7", *lines[3][1:]]
  wanted = ["--ahead", *(f"--part={at}/4" for at in range(4)), "--tables"]
  assert sweeps(place) == wanted


@pytest.mark.parametrize("code", [0, 1, 75])
def test_only_an_interrupted_task_is_requeued(place, code):
  assert place.run("local.sh")[0] == 0  # makes .venv
  words = ("--task", "4", "srun", "--nodes=1", ".venv/bin/python", "-m")
  status, _, err = place.task(
    *words, "nps_jax.sweep", settings=JOB | {"CODE": str(code)}, script="loco.sh"
  )
  assert (status, err) == (code, "")
  assert sweeps(place) == ["--part=3/4"]
  requeued = [["scontrol", "requeue", "7_3"]] if code == 75 else []
  assert place.calls("scontrol") == requeued


@pytest.mark.parametrize(
  ("wrong", "words", "message"),
  [
    ({"DATASET": "loco"}, (), "DATASET is 'loco'; expected mvtec_loco or mvtec_ad."),
    ({"CATEGORIES": "a b"}, (), "CATEGORIES is 'a b'; expected names with commas"),
    ({"SEEDS": "0,0"}, (), "SEEDS has twice: 0. Each run needs a folder."),
    ({"VARIANTS": "default paper"}, (), "VARIANTS is 'default paper'; expected names"),
    ({"GPUS": "0"}, (), "GPUS is '0'; expected a whole number from 1 to 99999."),
    ({"SLURM": "yes"}, (), "SLURM is 'yes'; expected 1 or 0."),
    ({"SLURM": "1", "GPUS": "2"}, (), "GPUS is 2; under SLURM each task has one."),
    ({"ACCEPT_LICENCE": "y"}, (), "ACCEPT_LICENCE is 'y'; expected 1 or 0."),
    ({"EXTRA": "cuda 12"}, (), "EXTRA is 'cuda 12'; expected extras of pyproject.toml"),
    ({"CONFIG": "configs/x.py"}, (), "CONFIG is 'configs/x.py'; there is no such file"),
    ({}, ("--out=x",), "--out cannot be given to this script: its settings say it."),
    ({}, ("--config.data.root=x",), "--config.data.root cannot be given to this"),
    ({}, ("--tables",), "--tables cannot be given to this script"),
  ],
)
def test_wrong_settings_are_refused(place, wrong, words, message):
  for dry in ((), ("--dry-run",)):
    code, out, err = place.run("loco.sh", *dry, *words, settings=wrong)
    assert (code, out, place.calls()) == (2, "", [])
    assert message in err


def test_a_machine_without_slurm_is_told_so_before_anything_is_fetched(place):
  path = place.tools("bash", "dirname", "sort", "tr", "uniq")
  code, out, err = place.run("loco.sh", settings={"PATH": path, "SLURM": "1"})
  assert (code, out) == (2, "")
  assert err == "There is no sbatch here; start this on a login node.\n"
