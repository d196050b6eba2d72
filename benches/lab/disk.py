"""What the disk takes for a batch of the embedded queue, by how many places it is written to.

The queue is a log: a batch is one piece, and the note of its end a page at the file's begin. A database in its place would write
pages of its trees as well (redb six to eight), wherever they lie.
"""

import os
import random
import statistics
import time

from .machine import say
from .report import Section, significant, table

PAGE_BYTES = 4 << 10
JOBS_BYTES = 64 << 10
PIECE_BYTES = 1 << 20
FILE_BYTES = 64 << 20
COMMITS = 100
IN_ONE_PIECE = f"{JOBS_BYTES >> 10} KiB in one piece"
# Pages elsewhere, and whether the page cache still has the file in the pieces in which it was written.
CASES = {
    IN_ONE_PIECE: (0, False),
    f"{IN_ONE_PIECE}, 1 page elsewhere": (1, False),
    f"{IN_ONE_PIECE}, 5 pages elsewhere": (5, False),
    f"{IN_ONE_PIECE}, 10 pages elsewhere": (10, False),
    f"{IN_ONE_PIECE}, 10 pages elsewhere, all of it in the page cache in pieces of {PIECE_BYTES >> 20} MiB": (10, True),
}


def scenario(lab):
    files = {is_cached: written_before(lab.shop.folder() / f"file-{is_cached}", is_cached) for is_cached in (False, True)}
    places = random.Random(1)
    walls, cpus = ({name: [] for name in CASES} for _ in range(2))
    for number in range(lab.rounds):
        for _ in range(COMMITS):
            for name, (pages, is_cached) in CASES.items():
                wall, cpu = commit(files[is_cached], pages, places)
                walls[name].append(wall)
                cpus[name].append(cpu)
        say(f"round {number + 1} of {lab.rounds}: {[round(statistics.median(wall)) for wall in walls.values()]} µs")
    for file in files.values():
        os.close(file)
    one = statistics.median(walls[IN_ONE_PIECE])
    rows = []
    for name, wall in walls.items():
        median, last = statistics.median(wall), statistics.quantiles(wall, n=100)[98]
        rows.append([name, significant(median), significant(last), significant(statistics.median(cpus[name])), f"{median / one:.2f}"])
    words = (
        f"Writes and fdatasync to a file that was written before, {lab.rounds * COMMITS} each in turn, nothing else running. Of a batch of "
        "the embedded queue the jobs are one piece, and the note of its end a page of 4 KiB elsewhere."
    )
    samples = [{"name": name, "wall_us": wall, "cpu_us": cpu} for name in CASES for wall, cpu in zip(walls[name], cpus[name])]
    return Section("disk", "Disk", words, [table(["written", "p50 µs", "p99 µs", "CPU µs", "of one piece"], rows)], [], [], samples)


def written_before(path, is_cached):
    """A file without blocks that were never written: an fsync behind those writes the file system's notes as well."""
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    for _ in range(0, FILE_BYTES, PIECE_BYTES):
        os.write(file, b"x" * PIECE_BYTES)
    os.fsync(file)
    if not is_cached:
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    return file


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
