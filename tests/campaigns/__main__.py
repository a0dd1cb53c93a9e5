"""`python -m tests.campaigns NAME [--count N] [--seconds T] [--seed K] [--first M]`: one campaign and its counts.

lines: command lines · shares: share lines · sequences: a session against a fresh run · keys: keys and resizes in a
real terminal (--count keys, a resize to every 20) · any-key: keys in process with slow workers · memory: a long run
(--count steps headless, a twentieth of them in the app). Run files: kills · flips · fuzz · prefixes (--count, or
all) · full, full-disk (--count times 4 KiB; the second on a file system of its own, as root) · long (--count steps,
evaluated at every 1000th) · long-evaluated (at every step). Exit code 1 if anything failed.
"""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections import Counter

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
_runs = tempfile.TemporaryDirectory(prefix="tinyvae-campaign-")  # not where the user's runs are
os.environ["TINYVAE_RUNS"] = _runs.name

from . import command_lines, keys, memory, run_files, runner, sequences, share_lines  # noqa: E402

CASES = {
    "lines": command_lines.case,
    "shares": share_lines.case,
    "sequences": sequences.case,
    "kills": run_files.killed,
    "flips": run_files.flipped,
    "fuzz": run_files.fuzzed,
}
COUNTS = {
    "lines": 10_000,
    "shares": 10_000,
    "sequences": 300,
    "keys": 10_000,
    "any-key": 10_000,
    "memory": 1_000_000,
    "kills": 200,
    "flips": 500,
    "fuzz": 1000,
    "prefixes": 1_000_000,
    "full": 120,
    "full-disk": 120,
    "long": 1_000_000,
    "long-evaluated": 100_000,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns", description=__doc__)
    parser.add_argument("name", choices=COUNTS)
    parser.add_argument("--count", type=int, help="how many cases, keys or steps")
    parser.add_argument("--seconds", type=float, default=3600.0, help="stop after this time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    args = parser.parse_args()
    count, started = args.count or COUNTS[args.name], time.monotonic()
    failures: list[str] = []
    if args.name in CASES:
        longest = 120.0 if args.name == "kills" else runner.LONGEST
        outcomes, failures = runner.play(CASES[args.name], args.seed, args.first, count, args.seconds, longest)
    elif args.name == "prefixes":
        outcomes, failures = run_files.prefixes(count, args.seconds)
    elif args.name in ("full", "full-disk"):
        outcomes, failures = run_files.full(count, args.seconds, args.name == "full-disk")
    elif args.name in ("long", "long-evaluated"):
        outcomes = Counter(steps=count)
        begin, end = run_files.long(count, 1 if "evaluated" in args.name else 1000, print)
        if end > begin + 32:
            failures.append(f"memory grew from {begin:.0f} to {end:.0f} MiB")
    elif args.name == "memory":
        outcomes = Counter(steps=count)
        for begin, end in (memory.headless(count, print), asyncio.run(memory.in_the_app(count // 20, print))):
            if end > begin + 32:
                failures.append(f"memory grew from {begin:.0f} to {end:.0f} MiB")
    else:
        outcomes = Counter()
        for part in range(max(1, count // 1000)):
            if time.monotonic() - started > args.seconds:
                break
            try:
                if args.name == "keys":
                    found = keys.session(
                        random.Random(f"{args.seed} {part}"), min(count, 1000), min(count, 1000) // 20
                    )
                    most = max(outcomes["MiB at most"], found.pop("MiB at most"))
                    outcomes += found
                    outcomes["MiB at most"] = most
                else:
                    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "tui"))
                    from test_any_key import play

                    screens = asyncio.run(play(min(count, 1000), 1000 * args.seed + part))
                    outcomes += Counter({"keys": min(count, 1000), "screens in a thousand": 0})
                    outcomes[f"{screens} kinds of screen"] += 1
            except (AssertionError, Exception) as problem:
                failures.append(
                    f"--seed {args.seed}, part {part}: {type(problem).__name__}: {str(problem)[:2000]}"
                )
    for failure in failures:
        print(f"FAILED {failure}")
    total = ", ".join(f"{name}: {number}" for name, number in sorted(outcomes.items()))
    print(f"{args.name}, seed {args.seed}: {total}; {len(failures)} failed; {time.monotonic() - started:.0f} s, "
          f"at most {runner.peak() / 2**20:.0f} MiB here")  # fmt: skip
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
