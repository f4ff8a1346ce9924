"""Many trainings from one config: variants x categories x seeds -> one table.

python -m nps_jax.sweep --config=configs/loco.py --variants=configs/ablation.py \
  --categories=all --seeds=0,1,2 --out=DIR --config.data.root=ROOT

Trains what is missing, one run after the other, in DIR/<variant>/<category>/seed<k> and
by `python -m nps_jax.train`; what is done stays. A run that differs from one that is
done only in config.SCORED takes that one's training over, unless it has begun its own.
--rivals adds two simple detectors on the same features, those of nps_jax.study.rivals.
--ahead only fetches what the runs need of the network. --part=K/N runs one part of N,
which may all run at the same time, each on devices of its own; --tables then writes the
tables.
sweep.json, .csv, .md and .html are written anew after each run. Ctrl-C, SIGTERM or
SIGHUP stops the current run at a checkpoint; the same command goes on from there.
"""

from collections.abc import Sequence
import sys

from nps_jax import console
from nps_jax.runs import interruption
from nps_jax.study import ahead
from nps_jax.study import plan
from nps_jax.study import runner


def main(arguments: Sequence[str] | None = None) -> None:
  """Trains what is missing and writes one table of everything."""
  console.listen()
  try:
    sweep = plan.make(sys.argv[1:] if arguments is None else arguments)
    with runner.interruptible():
      if sweep.job == "ahead":
        print("\n".join(ahead.fetch(sweep)))
        return
      failures = runner.run_all(sweep)
  except KeyboardInterrupt:
    print("Interrupted; the same command goes on from here.", file=sys.stderr)
    raise SystemExit(interruption.EXIT) from None
  except (ValueError, OSError) as error:
    raise SystemExit(f"Error: {error}") from error
  path = sweep.out / runner.TABLE
  if sweep.job == "part":
    print("This part is done. --tables in its place writes the tables of all.")
  else:
    print(path.with_suffix(".md").read_text(encoding="utf-8"))
    print(f"Written: {path}, and beside it .csv and .md; to look at: .html")
  if failures:
    causes = [f"{name}: {cause}" for name, cause in failures.items()]
    raise SystemExit("\n".join([f"Error: {len(failures)} runs failed.", *causes]))


if __name__ == "__main__":
  main()
