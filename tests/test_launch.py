"""The launch scripts' commands, and what they do, with stand-ins for what they call."""

import os
import shlex
import signal
import subprocess

import launching
import pytest

LEVELS = "--config.encoder.levels=(2,3,4)"
SCRIPTS = ("loco.sh", "local.sh", "slurm.sh", "test.sh", "tpu_pod.sh")
ARRAY = {"CATEGORIES": "tray,bottle", "SEEDS": "0,3", "PLACES": "0 1 2 3"}
SRUN = "srun --nodes=1 --ntasks=1 --ntasks-per-node=1 --cpus-per-task=4 --gpu-bind=none"
TASK = ("--task", "tray,bottle", "0,3", "runs/x", "srun", "--nodes=1")
TRAIN = (".venv/bin/python", "-m", "nps_jax.train")
JOB = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1", "SLURM_JOB_ID": "9"}


pytestmark = pytest.mark.usefixtures("heard")


@pytest.fixture
def place(tmp_path):
  return launching.Place(tmp_path)


def test_the_scripts_are_read_by_bash_and_stop_at_errors():
  found = sorted(launching.ROOT.glob("launch/*.sh"))
  assert {each.name for each in found} == {"environment.sh", *SCRIPTS}
  for each in found:
    subprocess.run(["bash", "-n", each], check=True)
    lines = each.read_text().splitlines()
    assert all(len(line) <= 88 for line in lines)
    if each.name != "environment.sh":
      assert os.access(each, os.X_OK)
      code = [line for line in lines if line and not line.startswith("#")]
      assert lines[0] == "#!/usr/bin/env bash"
      assert code[0] == "set -euo pipefail"


@pytest.mark.parametrize(
  "words",
  [
    ["plain", "--a.b=c,d:e@f/g+h%i_j-k"],
    [LEVELS, "two words", "", '$HOME `date` "$(ls)" \\ ! * ~ # é'],
    ["it's", "'", "''", "a'b'c\\'", "tab\tand\nline"],
  ],
)
def test_quoted_words_are_read_back_as_they_are(place, words):
  script = 'source launch/environment.sh; quoted "$@"'
  line = subprocess.check_output(
    ["bash", "-euc", script, "bash", *words], cwd=place.repository, text=True
  )
  assert shlex.split(line) == words
  again = subprocess.check_output(["bash", "-c", f"printf '%s|' {line}"], text=True)
  assert again == "".join(f"{word}|" for word in words)


def test_words_without_special_characters_stay_bare(place):
  script = 'source launch/environment.sh; quoted a=b,c "d e" "f\'g"'
  found = subprocess.check_output(["bash", "-c", script], cwd=place.repository)
  assert found == b"a=b,c 'd e' 'f'\\''g'\n"


def test_local_prints_its_command(place):
  assert place.dry("local.sh", LEVELS) == [
    ".venv/bin/python -m nps_jax.train --config=configs/synthetic.py "
    f"--workdir=runs/local '{LEVELS}'"
  ]
  lines = place.dry("local.sh", settings={"WORKDIR": "/a b"})
  assert lines[0].endswith("configs/synthetic.py '--workdir=/a b'")


def test_local_installs_once_and_trains(place):
  code, _, err = place.run("local.sh", LEVELS, settings={"CODE": "7"})
  assert (code, err) == (7, "")
  flags = ["--config=configs/synthetic.py", "--workdir=runs/local", LEVELS]
  train = ["python", "-m", "nps_jax.train", *flags]
  pip = ["pip", "install", "--quiet", "--disable-pip-version-check", "--editable", "."]
  assert place.calls()[1:] == [
    ["python3", "-m", "venv", ".venv"],
    ["python", "-m", *pip],
    train,
  ]
  assert place.run("local.sh", LEVELS)[0] == 0
  assert place.calls("python")[2:] == [train]


@pytest.mark.parametrize(
  ("slow", "chosen"), [((), " -m 'not slow'"), (("--slow",), "")]
)
def test_tests_are_printed(place, slow, chosen):
  assert place.dry("test.sh", *slow, "-k", "a or b") == [
    ".venv/bin/ruff check . && .venv/bin/ruff format --check . && "
    ".venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder"
    f"{chosen} -k 'a or b'"
  ]


@pytest.mark.parametrize(
  ("slow", "chosen"), [((), ["-m", "not slow"]), (("--slow",), [])]
)
def test_tests_follow_the_linter(place, slow, chosen):
  words = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", *chosen]
  assert place.run("test.sh", *slow, "-k", "a or b")[0] == 0
  assert place.calls("python")[0][-1] == ".[test]"
  assert [*place.calls("ruff"), *place.calls("python")[1:]] == [
    ["ruff", "check", "."],
    ["ruff", "format", "--check", "."],
    ["python", "-m", "pytest", *words, "-k", "a or b"],
  ]


def test_no_tests_run_after_the_linters_complaint(place):
  assert place.run("test.sh", settings={"RUFF_CODE": "5"})[0] == 5
  assert place.calls("ruff") == [["ruff", "check", "."]]
  assert len(place.calls("python")) == 1  # pip


def test_an_old_python_is_refused(place):
  for name in ("python3", "python3.11", "python3.12", "python3.13"):
    place.command(name, "#!/bin/sh\nexit 1\n")
  code, _, err = place.run("local.sh")
  assert code == 1
  assert err == "Python 3.11 or newer is needed; set PYTHON to its path.\n"


def test_the_array_is_printed(place):
  settings = {"CATEGORIES": "tray,bottle", "SEEDS": "0,3", "DATA": "/data/my loco"}
  start = (
    f"{SRUN} --kill-on-bad-exit=0 .venv/bin/python -m nps_jax.train "
    f"--config=configs/loco.py '--config.data.root=/data/my loco' '{LEVELS}'"
  )
  runs = [("tray", 0), ("tray", 3), ("bottle", 0), ("bottle", 3)]
  assert place.dry("slurm.sh", LEVELS, settings=settings) == [
    "sbatch --job-name=nps_jax --array=0-3 --nodes=1 --ntasks-per-node=1 "
    "--gpus-per-node=1 --cpus-per-task=4 --time=04:00:00 --signal=TERM@120 --requeue "
    "--open-mode=append --output=runs/slurm/slurm-%A_%a.out launch/slurm.sh --task "
    f"tray,bottle 0,3 runs/slurm {start}",
    *(
      f"{start} --workdir=runs/slurm/{name}/seed{seed} --config.data.category={name} "
      f"--config.seed={seed}"
      for name, seed in runs
    ),
  ]


def test_several_nodes_have_a_process_for_each_gpu(place):
  settings = {"CATEGORIES": "all", "NODES": "2", "GPUS": "4", "CPUS": "8"}
  settings |= {"TIME": "30", "GRACE": "300", "RUNS": "/r", "AT_ONCE": "5"}
  settings["CONFIG"] = "configs/synthetic.py"
  start = (
    "srun --nodes=2 --ntasks=8 --ntasks-per-node=4 --cpus-per-task=8 --gpu-bind=none "
    "--kill-on-bad-exit=0 .venv/bin/python -m nps_jax.train --multihost "
    "--config=configs/synthetic.py"
  )
  assert place.dry("slurm.sh", settings=settings) == [
    "sbatch --job-name=nps_jax --array=0-0%5 --nodes=2 --ntasks-per-node=4 "
    "--gpus-per-node=4 --cpus-per-task=8 --time=30 --signal=TERM@300 --requeue "
    "--open-mode=append --output=/r/slurm-%A_%a.out launch/slurm.sh --task all 0 /r "
    f"{start}",
    f"{start} --workdir=/r/all/seed0 --config.data.category=all --config.seed=0",
  ]


def test_one_node_is_one_process_whatever_its_gpus(place):
  lines = place.dry("slurm.sh", settings={"CATEGORIES": "all", "GPUS": "8"})
  assert "--ntasks-per-node=1 --gpus-per-node=8" in lines[0]
  assert lines[1].startswith(SRUN)
  assert "--multihost" not in lines[1]


def test_the_submission_does_what_was_printed(place):
  lines = launching.words(place.dry("slurm.sh", LEVELS, "two words", settings=ARRAY))
  code, _, err = place.run("slurm.sh", LEVELS, "two words", settings=ARRAY)
  assert (code, err) == (0, "")
  assert place.calls("sbatch", "srun") == lines
  assert (place.repository / "runs" / "slurm").is_dir()
  pip, *trained = place.calls("python")
  assert pip[-1] == ".[cuda12]"
  start = lines[1].index("-m")
  assert trained == [["python", *line[start:]] for line in lines[1:]]
  assert all({LEVELS, "two words"} <= set(each) for each in trained)


def test_without_an_extra_the_core_is_installed(place):
  assert place.run("slurm.sh", settings=ARRAY | {"EXTRA": ""})[0] == 0
  assert place.calls("python")[0][-1] == "."


@pytest.mark.parametrize("code", [0, 1, 74, 75, 76, 137, 143])
def test_only_an_interrupted_task_is_requeued(place, code):
  assert place.run("local.sh")[0] == 0  # makes .venv
  words, settings = (*TASK, *TRAIN), JOB | {"CODE": str(code)}
  found, _, err = place.task(*words, settings=settings)
  assert (found, err) == (code, "")
  want = [["scontrol", "requeue", "7_1"]] if code == 75 else []
  assert place.calls("scontrol") == want


def test_a_failed_requeue_is_said(place):
  assert place.run("local.sh")[0] == 0
  place.command("scontrol", "#!/bin/sh\nexit 1\n")
  code, _, err = place.task(*TASK, *TRAIN, settings=JOB | {"CODE": "75"})
  assert code == 75
  assert err == "Not requeued; the same launch command goes on from the checkpoint.\n"


@pytest.mark.parametrize("whole", [False, True])
def test_a_signal_to_the_step_requeues_and_one_to_the_job_does_not(place, whole):
  assert place.run("local.sh")[0] == 0
  (place.state / "hang").touch()
  process = place.start_task(*TASK, *TRAIN, settings=JOB)
  place.wait_for_training()
  step = int((place.state / "pid").read_text())
  if whole:
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == -signal.SIGTERM
  os.kill(step, signal.SIGTERM)
  process.communicate(timeout=60)
  assert process.returncode == (-signal.SIGTERM if whole else 75)
  place.wait_for(lambda: ["saved"] in place.calls())
  assert place.calls("scontrol") == ([] if whole else [["scontrol", "requeue", "7_1"]])


@pytest.mark.parametrize(
  ("settings", "words", "message"),
  [
    ({"CATEGORIES": ""}, (), "CATEGORIES is ''; expected names with commas and no"),
    ({"CATEGORIES": "a b"}, (), "CATEGORIES is 'a b'; expected names with commas and"),
    ({"CATEGORIES": "a,,b"}, (), "between, such as pushpins,juice_bottle, or all."),
    ({"CATEGORIES": "../a"}, (), "CATEGORIES is '../a'; expected names"),
    ({"CATEGORIES": "a,b,a"}, (), "CATEGORIES has twice: a. Each run needs a folder."),
    ({"SEEDS": "0,one"}, (), "SEEDS is '0,one'; expected whole numbers from 0 on with"),
    ({"SEEDS": ""}, (), "SEEDS is ''; expected whole numbers"),
    ({"SEEDS": "-1"}, (), "between, such as 0,1,2."),
    ({"SEEDS": "01"}, (), "SEEDS is '01'; expected whole numbers"),
    ({"SEEDS": "2,1,2,1"}, (), "SEEDS has twice: 1 2. Each run needs a folder."),
    ({"NODES": "0"}, (), "NODES is '0'; expected a whole number from 1 to 99999."),
    ({"GPUS": "two"}, (), "GPUS is 'two'; expected a whole number from 1 to 99999."),
    ({"CPUS": "1.5"}, (), "CPUS is '1.5'; expected a whole number"),
    ({"AT_ONCE": "no"}, (), "AT_ONCE is 'no'; expected a whole number"),
    ({"GRACE": "65536"}, (), "GRACE is 65536; SLURM allows 65535 seconds at most."),
    ({"EXTRA": "cuda 12"}, (), "EXTRA is 'cuda 12'; expected extras of pyproject.toml"),
    ({"CONFIG": "configs/x.py"}, (), "CONFIG is 'configs/x.py'; there is no such file"),
    ({}, ("--config.seed=1",), "--config.seed cannot be given to this script: its"),
    ({}, (LEVELS, "--workdir", "x"), "--workdir cannot be given to this script"),
    ({}, ("--config.data.category=a",), "They are listed in launch/README.md."),
    ({}, ("--config=a.py",), "--config cannot be given to this script"),
    ({}, ("--multihost",), "--multihost cannot be given to this script"),
  ],
)
def test_wrong_settings_of_an_array_are_refused(place, settings, words, message):
  for dry in ((), ("--dry-run",)):
    code, out, err = place.run(
      "slurm.sh", *dry, *words, settings={"CATEGORIES": "tray"} | settings
    )
    assert (code, out, place.calls()) == (2, "", [])
    assert message in err


@pytest.mark.parametrize(
  ("script", "message"),
  [
    ("slurm.sh", "There is no sbatch here; start this on a login node.\n"),
    ("tpu_pod.sh", "There is no gcloud here; install the Google Cloud CLI.\n"),
  ],
)
def test_a_machine_without_the_command_is_told_so(place, script, message):
  path = place.tools("bash", "dirname", "tr", "sort", "uniq")
  settings = {"PATH": path, "CATEGORIES": "all"}
  settings |= {"NAME": "nps", "ZONE": "us-west4-a", "WORKDIR": "/w"}
  code, out, err = place.run(script, settings=settings)
  assert (code, out, err) == (2, "", message)
