"""Instructions of the parts of a request's path, counted by valgrind: however busy a machine is, they hardly differ from run to run."""

import re
import subprocess
import tempfile

from .machine import ENVIRONMENT, Failure, say
from .report import Section, table

CALLS = 1000
TIMED_ROUNDS = 5
TIMED_CALLS = 100_000
# Parts that take long are called fewer times.
TIMED_LIMIT_NANOS = 200_000_000


def parts_of(program):
    return run([program]).stdout.splitlines()


def run(command):
    output = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=ENVIRONMENT)
    if output.returncode:
        raise Failure(f"{command[0]}: {output.stderr}")
    return output


def instructions(program, part):
    """How many a call takes: those of `measured` and of what it calls, by the number of calls."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--toggle-collect=*measured*", f"--callgrind-out-file={folder}/out"]
        output = run([*command, program, part, CALLS])
    found = re.search(r"Collected : (\d+)", output.stderr)
    if not found or int(found[1]) < CALLS:
        raise Failure(f"valgrind counted nothing of {part}: {output.stderr[-300:]}")
    return int(found[1]) / CALLS


def nanoseconds(program, parts):
    """Of a call, by part: the best of some rounds, because a slow moment of the machine would meet all runs of one part."""
    time = lambda part, calls: float(run([program, part, calls]).stdout)
    calls = {part: max(100, min(TIMED_CALLS, int(TIMED_LIMIT_NANOS / max(time(part, 100), 1)))) for part in parts}
    rounds = [{part: time(part, calls[part]) for part in parts} for _ in range(TIMED_ROUNDS)]
    return {part: min(times[part] for times in rounds) for part in parts}


def count(program):
    """Instructions a call, by part."""
    counted = {}
    for part in parts_of(program):
        counted[part] = instructions(program, part)
        say(f"{part}: {counted[part]:,.0f} instructions")
    return counted


def scenario(lab):
    program = lab.programs["parts"]
    counted = count(program)
    times = nanoseconds(program, list(counted))
    rows, measurements = [], []
    for part, number in counted.items():
        time = times[part]
        rows.append([part, f"{number:,.0f}", f"{time:,.0f}"])
        measurements.append({"name": part, "instructions": number, "nanoseconds": time})
    words = (
        "Instructions of one call, counted by valgrind, which knows no SHA instructions: there the signature costs more than on "
        "the machine itself. Nanoseconds are the best of five rounds on one core; a busy machine shows in them."
    )
    return Section("instructions", "Parts", words, [table(["part", "instructions", "ns"], rows)], [], [], measurements)
