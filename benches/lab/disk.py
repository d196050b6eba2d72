"""What the disk takes for a batch of the embedded queue, by how many places it is written to.

The queue is a redb file: a commit writes the jobs in one piece, and about ten pages of its trees wherever they lie.
"""

import os
import random
import statistics
import time

from .machine import say
from .report import Section, significant, table

PAGE_BYTES = 4 << 10
JOBS_BYTES = 64 << 10
FILE_BYTES = 64 << 20
COMMITS = 100
PAGES = (0, 5, 10)


def scenario(lab):
    path = lab.shop.folder() / "file"
    # Written once: an fsync behind blocks that were never written writes the file system's notes as well.
    with open(path, "wb") as file:
        for _ in range(0, FILE_BYTES, 1 << 20):
            file.write(b"x" * (1 << 20))
        os.fsync(file.fileno())
    places = random.Random(1)
    times = {pages: [] for pages in PAGES}
    with open(path, "r+b", buffering=0) as file:
        for number in range(lab.rounds * COMMITS):
            for pages in PAGES:
                times[pages].append(commit(file.fileno(), pages, places))
            if (number + 1) % COMMITS == 0:
                say(f"round {(number + 1) // COMMITS} of {lab.rounds}: {[round(statistics.median(wall)) for wall in map(walls, times.values())]} µs")
    one = statistics.median(walls(times[0]))
    rows = []
    for pages, measured in times.items():
        wall, cpu = walls(measured), [cpu for _, cpu in measured]
        share = statistics.median(wall) / one
        row = [f"{JOBS_BYTES >> 10} KiB in one piece" + (f", {pages} pages elsewhere" if pages else "")]
        row += [significant(statistics.median(wall)), significant(statistics.quantiles(wall, n=100)[98])]
        rows.append([*row, significant(statistics.median(cpu)), f"{share:.2f}"])
    words = (
        f"Writes and fdatasync to a file that was written before, {lab.rounds * COMMITS} each in turn, nothing else running. Of a batch of "
        "the embedded queue the jobs are one piece; redb's trees take about ten pages of 4 KiB elsewhere."
    )
    rows_of = [{"name": str(pages), "wall_us": wall, "cpu_us": cpu} for pages, measured in times.items() for wall, cpu in measured]
    return Section("disk", "Disk", words, [table(["written", "p50 µs", "p99 µs", "CPU µs", "of one piece"], rows)], [], [], rows_of)


def walls(measured):
    return [wall for wall, _ in measured]


def commit(file, pages, places):
    """Microseconds until it is on the disk, and of the processor."""
    at = places.randrange(FILE_BYTES // 2, FILE_BYTES - JOBS_BYTES, PAGE_BYTES)
    elsewhere = [places.randrange(0, FILE_BYTES // 2, PAGE_BYTES) for _ in range(pages)]
    jobs, page = b"j" * JOBS_BYTES, b"p" * PAGE_BYTES
    started, busy = time.perf_counter(), time.thread_time()
    for place in elsewhere:
        os.pwrite(file, page, place)
    os.pwrite(file, jobs, at)
    os.fdatasync(file)
    return (time.perf_counter() - started) * 1e6, (time.thread_time() - busy) * 1e6
