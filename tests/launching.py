"""A copy of the repository, and stand-ins for what the launch scripts call."""

from collections.abc import Callable
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parent.parent
SEPARATOR = "\x1f"  # between the logged words of a call

# Logs its words, then plays an interpreter, the linter or a command of SLURM.
COMMAND = r"""#!/usr/bin/env bash
line=$(printf "%s\x1f" "${0##*/}" "$@"; echo .); printf "%s\n" "${line%.}" >>"$LOG"
case "${0##*/} $*" in
  "python3 "*" .venv") mkdir -p .venv/bin && cp "$0" .venv/bin/python &&
    cp "$0" .venv/bin/ruff ;;
  "ruff "*) exit "${RUFF_CODE:-0}" ;;
  "srun "*) while [[ $1 == --* || $1 == srun ]]; do shift; done; exec "$@" ;;
  "sbatch "*)
    [[ " $* " != *" --parsable "* ]] || echo "7;cluster"
    while [[ $# -gt 0 && $1 != launch/*.sh ]]; do
      [[ $1 != --wrap=* ]] || bash -c "${1#*=}"
      shift
    done
    [ $# -gt 0 ] || exit 0
    cp "$1" "$STATE/slurm_script" # SLURM copies it, too
    shift
    for place in $PLACES; do
      SLURM_ARRAY_JOB_ID=7 SLURM_ARRAY_TASK_ID=$place "$STATE/slurm_script" "$@"
    done ;;
  "python -m nps_jax.data.fetch "*)
    for word in "$@"; do [[ $word != --out=* ]] || mkdir -p "${word#*=}"; done
    exit "${FETCH_CODE:-0}" ;;
  "python -m nps_jax.study.expected "*)
    [ "${EXPECTED:-}" ] || { echo Error: no >&2; exit 1; }
    echo "$EXPECTED" ;;
  "python -m nps_jax.sweep "*"--ahead") exit "${AHEAD_CODE:-0}" ;;
  "python -m nps_jax.sweep "*"--tables") ;;
  "python -m nps_jax.sweep "*)
    printf "gpu\x1f%s\x1f\n" "${CUDA_VISIBLE_DEVICES:-}" >>"$LOG"
    if [ -e "$STATE/hang" ]; then
      trap 'echo saved >>"$LOG"; sleep 0.3; echo ended >>"$LOG"; exit 75' TERM
      trap 'echo interrupted >>"$LOG"; exit 1' INT
      echo started >>"$LOG"
      while [ -e "$STATE/hang" ] && [ $SECONDS -lt 60 ]; do sleep 0.02; done
    fi
    [[ "$*" != *"--part=${FAILS:-none}" ]] || exit 3
    exit "${CODE:-0}" ;;
  "python -m nps_jax.train "*)
    echo $$ >"$STATE/pid"
    if [ -e "$STATE/hang" ]; then
      trap 'echo saved >>"$LOG"; exit 75' TERM
      touch "$STATE/started"
      while [ -e "$STATE/hang" ] && [ $SECONDS -lt 60 ]; do sleep 0.02; done
      echo ended >>"$LOG"
    fi
    for word in "$@"; do
      if [[ $word == --workdir=/* ]]; then
        for name in config.json metrics.jsonl calibration.npz results.json results.md
        do echo "$name" >"${word#*=}/$name"; done
      fi
    done
    exit "${CODE:-0}" ;;
esac
"""

# Logs its words, then plays a cloud whose hosts are two folders.
GCLOUD = """#!{python} -IS
import os, pathlib, shutil, subprocess, sys
words, state = sys.argv[1:], pathlib.Path(os.environ["STATE"])
with open(os.environ["LOG"], "a") as log:
  log.write("\\x1f".join(["gcloud", *words]) + "\\x1f\\n")
slices, action = state / "slices", words[3]
if {gone} and action == "delete":
  slices.unlink(missing_ok=True)
  sys.exit(1)
flags = dict(word.split("=", 1) for word in words if "=" in word)
fail = os.environ.get("FAIL", "none")
if fail == action or fail in flags.get("--command", ""):
  sys.exit(int(os.environ.get("FAIL_CODE", 1)))
hosts = [state / "host0", state / "host1"]
if flags.get("--worker") == "0":
  hosts = hosts[:1]
if action == "list":
  print(slices.read_text() if slices.exists() else "", end="")
elif action == "create":
  slices.write_text("other\\nnps\\n")
elif action == "describe":
  first, *rest = (state / "states").read_text().split()
  (state / "states").write_text(" ".join(rest))
  print(first)
elif action == "delete":
  slices.write_text("other\\n")
elif action == "scp" and words[4].startswith("nps:"):
  shutil.copy(hosts[0] / words[4][4:], words[5])
elif action == "scp":
  for host in hosts:
    shutil.copy(words[4], host / words[5][4:])
elif action == "ssh":  # what runs there outlives the connection
  running = [
    subprocess.Popen(
      ["bash", "-c", flags["--command"]],
      cwd=host, env=os.environ | {{"HOME": str(host)}}, start_new_session=True,
    )
    for host in hosts
  ]
  sys.exit(max([each.wait() for each in running]))
"""


def gcloud(*, gone: bool = False) -> str:
  """The stand-in; if `gone`, each deletion fails and leaves nothing behind."""
  return GCLOUD.format(python=sys.executable, gone=gone)


class Place:
  """Runs the scripts in a copy of the repository, and says what they called."""

  def __init__(self, folder: pathlib.Path):
    self.repository, self.state = folder / "repository", folder / "state"
    self.share, self._bin, self._log = folder / "share", folder / "bin", folder / "log"
    for each in (self.share, self._bin, self.state / "host0", self.state / "host1"):
      each.mkdir(parents=True)
    for name in ("python3", "sbatch", "srun", "scontrol"):
      self.command(name, COMMAND)
    self.command("gcloud", gcloud())
    self.command(
      "sudo", '#!/bin/sh\ncase "$1" in mount | apt-get) ;; *) "$@" ;; esac\n'
    )
    self.command("mountpoint", "#!/bin/sh\nexit 1\n")
    shutil.copytree(ROOT / "launch", self.repository / "launch")
    for name in (
      *(f"configs/{config}.py" for config in ("loco", "mvtec_ad", "synthetic")),
      "pyproject.toml",
    ):
      (self.repository / name).parent.mkdir(exist_ok=True)
      shutil.copy(ROOT / name, self.repository / name)
    shutil.copy(ROOT / ".gitignore", self.repository)
    self.git("init", "--quiet")
    self.git("add", ".")
    self.git("commit", "--quiet", "--message=all")

  def command(self, name: str, text: str) -> None:
    """Puts a command before all others."""
    (self._bin / name).write_text(text)
    (self._bin / name).chmod(0o755)

  def tools(self, *names: str) -> str:
    """A PATH with these commands of the system, and no others."""
    for name in names:
      (self.state / "tools" / name).parent.mkdir(exist_ok=True)
      (self.state / "tools" / name).symlink_to(shutil.which(name))
    return str(self.state / "tools")

  def environment(self, settings: dict[str, str]) -> dict[str, str]:
    return {
      "PATH": f"{self._bin}:{os.environ['PATH']}",
      "HOME": str(self.state),
      "LOG": str(self._log),
      "STATE": str(self.state),
      "GIT_CONFIG_GLOBAL": os.devnull,
      "PAUSE": "0",
    } | settings

  def git(self, *words: str) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(
      ["git", *who, *words], cwd=self.repository, env=self.environment({}), check=True
    )

  def start(
    self,
    script: str,
    *words: str,
    settings: dict[str, str] | None = None,
    folder: pathlib.Path | None = None,
  ) -> subprocess.Popen:
    """Starts a script, from a folder that is not the repository unless it is given."""
    return subprocess.Popen(
      ["bash", str(self.repository / "launch" / script), *words],
      cwd=folder or self.state,
      env=self.environment(settings or {}),
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      start_new_session=True,
    )

  def run(
    self, script: str, *words: str, settings: dict[str, str] | None = None
  ) -> tuple[int, str, str]:
    """The exit status, and what the script said on stdout and stderr."""
    process = self.start(script, *words, settings=settings)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err

  def start_task(
    self, *words: str, settings: dict[str, str], script: str = "slurm.sh"
  ) -> subprocess.Popen:
    """A task of an array: SLURM starts a copy of the script in the repository."""
    copy = self.state / "slurm_script"
    shutil.copy(self.repository / "launch" / script, copy)
    return self.start(str(copy), *words, settings=settings, folder=self.repository)

  def task(
    self, *words: str, settings: dict[str, str], script: str = "slurm.sh"
  ) -> tuple[int, str, str]:
    process = self.start_task(*words, settings=settings, script=script)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err

  def dry(
    self, script: str, *words: str, settings: dict[str, str] | None = None
  ) -> list[str]:
    """The lines of --dry-run, which calls nothing and writes nothing."""
    before = sorted(self.repository.rglob("*"))
    code, out, err = self.run(script, "--dry-run", *words, settings=settings)
    assert (code, err, self.calls()) == (0, "", [])
    assert sorted(self.repository.rglob("*")) == before
    return out.splitlines()

  def calls(self, *names: str) -> list[list[str]]:
    """The words of each call so far, of these commands or of all."""
    if not self._log.exists():
      return []
    lines = [line.split(SEPARATOR) for line in self._log.read_text().splitlines()]
    calls = [line[:-1] or line for line in lines]
    return [call for call in calls if not names or call[0] in names]

  def steps(self) -> list[str]:
    """What was asked of the cloud, in short."""
    inner = {"nps_jax.train": "train", "train.pid": "stop", "nps_jax.tar": "install"}
    inner |= {"results.tar": "pack", "touch": "look", "mkdir": "mark"}
    found = []
    for _, _, _, _, verb, *rest in self.calls("gcloud"):
      names = [
        name for part, name in inner.items() if verb == "ssh" and part in rest[2]
      ]
      found.append(names[0] if names else verb)
    return found

  def wait_for_training(self) -> None:
    self.wait_for((self.state / "started").exists)

  def end_training(self) -> None:
    """Stops a training that hangs, on both hosts."""
    (self.state / "hang").unlink()
    self.wait_for(lambda: self.calls("ended") == [["ended"]] * 2)

  def wait_for(self, there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not there():
      assert time.monotonic() < deadline, self.calls()
      time.sleep(0.01)


def words(lines: list[str]) -> list[list[str]]:
  """What a shell reads of each line."""
  return [shlex.split(line) for line in lines]


def end(process: subprocess.Popen, number: signal.Signals) -> tuple[int, str]:
  """Signals the script alone; returns its exit status and what it said on stderr."""
  process.send_signal(number)
  err = process.communicate(timeout=60)[1]
  return process.returncode, err
