"""The GPU suite, one command: ``python benchmarks/gpu/run.py [PART ...] [--budget-s 500]``.

Each part runs in a process of its own, which owns the device while it runs, and gets its share of
the time that is left: a part that fails, dies or hangs costs the others nothing. Results are merged
into one file per device, ``benchmarks/results/gpu-DEVICE.json``; what was measured with the same
device, JAX and size is kept (``--force`` measures again), so a call that ends early is gone on with
by the same command. Exit status 1 if a case failed.
"""

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))  # _common and the other benchmarks' helpers

from _part import run_part, told_on_stdout  # noqa: E402
from _results import Results  # noqa: E402
from _sizes import SIZES  # noqa: E402

PARTS = {
    "early_release": 70,
    "stages": 70,
    "command_buffers": 50,
    "dispatch_cost": 25,
    "copy_out": 20,
    "throughput": 110,
    "tuner": 25,
    "live": 130,
}
"""Parts in their order, and the seconds that each is worth: their shares of the call's time."""
GRACE_S = 20.0
"""What a part may run beyond its share, to end the case that it is at."""


@dataclass(slots=True)
class Call:
    """One call: what it may use, and what it has learnt of the results.

    Attributes:
        budget_s: For all parts together.
        arguments: For each part's process.
        force: Whether what is there is measured again.
        file: Results; known once a part has begun.
        settings: Of the results that are kept.
    """

    budget_s: float
    arguments: list[str]
    force: bool = False
    file: Path | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def learn(self, event: Mapping[str, Any]) -> None:
        """Take note of where a part keeps its results."""
        if "file" in event:
            self.file, self.settings = Path(event["file"]), event["with"]

    def results(self) -> Results | None:
        """What is on disk now."""
        return None if self.file is None else Results(self.file)


def run_once(
    call: Call, part: str, seconds: float, skip: set[str]
) -> tuple[int | None, str | None]:
    """Run a part's process until it ends, at most ``seconds`` and a little more.

    Returns:
        Its exit status, None if it had to be ended, and the case that it was at.
    """
    skips = [word for key in sorted(skip) for word in ("--skip", key)]
    # Once per call: a process that goes on after another died keeps what that one measured.
    force = ["--force"] if call.force and not skip else []
    command = [sys.executable, str(HERE / "run.py"), "--one", part, "--budget-s", f"{seconds:.1f}"]
    process = subprocess.Popen(
        [*command, *call.arguments, *force, *skips], stdout=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + seconds + GRACE_S
    lines, reader = lines_of(process)
    at, status = None, None
    try:
        while (line := lines.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            event = json.loads(line)
            call.learn(event)
            at = event.get("begins", at if "ends" not in event else None)
        status = process.wait(GRACE_S)
    except (queue.Empty, subprocess.TimeoutExpired):
        pass
    finally:
        process.kill()
        process.wait()
        reader.join()
    return status, at


def lines_of(
    process: "subprocess.Popen[str]",
) -> tuple["queue.SimpleQueue[str | None]", threading.Thread]:
    """What a process prints, None at its end, and the thread that reads it."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put(line)
        lines.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    return lines, reader


def run_whole(call: Call, part: str, seconds: float) -> str:
    """Run a part, again without the case at which it died; returns why it could not be run."""
    start, skip = time.monotonic(), set[str]()
    while True:
        status, at = run_once(call, part, seconds - (time.monotonic() - start), skip)
        results = call.results()
        if status == 0:
            return ""
        why = "ended at its time limit" if status is None else f"its process ended with {status}"
        if results is None or at is None:
            return why
        results.fail(part, at, why)
        skip.add(at)
        if time.monotonic() - start >= seconds:
            return ""


def run_call(
    call: Call, parts: Mapping[str, float], say: Callable[[str], None] = print
) -> dict[str, str]:
    """Run parts in turn, each for its share of what is left of the call's time.

    Returns:
        By part what went wrong or was left; empty if every case is there.
    """
    deadline, problems = time.monotonic() + call.budget_s, {}
    for number, (part, share) in enumerate(parts.items()):
        results, left_s = call.results(), deadline - time.monotonic()
        if results is not None and results.is_done(part, call.settings) and not call.force:
            say(f"{part}: kept")
            continue
        if left_s < 1.0:
            problems[part] = "no time left for it"
            say(f"{part}: {problems[part]}")
            continue
        ahead = sum(list(parts.values())[number:])
        seconds = left_s * share / ahead
        said = run_whole(call, part, seconds)
        problem = summary(call.results(), part, said)
        if problem:
            problems[part] = problem
        say(f"{part}: {problem or 'done'}")
    return problems


def summary(results: Results | None, part: str, said: str) -> str:
    """What is missing of a part, in one line; empty if nothing is."""
    if results is None or part not in results.content["parts"]:
        return said or "nothing was measured"
    failed = results.content["parts"][part]["failed"]
    left = [key for key in results.left(part) if key not in failed]
    told = [said] if said else []
    told += [f"left: {'; '.join(left)}"] if left else []
    told += [f"failed: {key} ({why})" for key, why in failed.items()]
    return ", ".join(told)


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; else all")
    made.add_argument("--budget-s", type=float, default=500.0, help="time for this call")
    made.add_argument("--force", action="store_true", help="measure again what is there")
    made.add_argument("--size", choices=SIZES, help="by the device's kind unless given")
    made.add_argument("--results", type=Path, default=HERE.parent / "results")
    made.add_argument("--device", help=argparse.SUPPRESS)
    made.add_argument("--one", help=argparse.SUPPRESS)
    made.add_argument("--skip", action="append", default=[], help=argparse.SUPPRESS)
    return made


def forwarded(options: argparse.Namespace) -> list[str]:
    """What each part's process gets of the options."""
    given = {"--size": options.size, "--device": options.device, "--results": options.results}
    return [word for name, value in given.items() if value for word in (name, str(value))]


def main() -> None:
    """Run what was asked for, or everything."""
    options = parser().parse_args()
    if options.one:
        tell = told_on_stdout()
        if options.device is None:
            from apparate_jax.serve.cache import enable_compilation_cache

            enable_compilation_cache()  # parts share programs, and so do calls
        run_part(
            options.one,
            options.size,
            options.results,
            options.budget_s,
            skip=options.skip,
            force=options.force,
            device=options.device,
            tell=tell,
        )
        return
    asked = dict.fromkeys(options.parts or PARTS)
    unknown = sorted(set(asked) - set(PARTS))
    if unknown:
        sys.exit(f"unknown parts {unknown}, expected some of {list(PARTS)}")
    call = Call(options.budget_s, forwarded(options), options.force)
    problems = run_call(call, {part: PARTS[part] for part in asked})
    if problems:
        print("the same command goes on with what is left")
    results = call.results()
    if results is None or any(results.content["parts"].get(p, {}).get("failed") for p in asked):
        sys.exit(1)


if __name__ == "__main__":
    main()
