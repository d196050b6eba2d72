"""Memory, and what orders that wait in the outage journal cost."""

import time

from . import bodies, load
from .bodies import ORDER_BYTES
from .contestants import Gateway
from .machine import get, wait_until
from .report import Bar, Section, mib, milliseconds, significant, table
from .rounds import measure

RATE = 4000


def take_away(server):
    """Takes Redis away, and waits until the gateway knows."""
    server.redis.kill()
    request = server.request(bodies.ORDER)
    load.open_loop(server, request, 100, 8, 1)
    note = lambda: b"outage journal" in get(server.private, "/ready")[2]
    wait_until("the outage", note, process=server.process)


def fill(server, jobs, rate=10_000):
    """Sends orders at a fixed rate until so many lie in the journal."""
    request = server.request(bodies.ORDER)
    while (missing := int(jobs - server.metric("retrieve_journal_jobs "))) > 0:
        each_second = min(rate, missing)
        load.open_loop(server, request, each_second, load.CONNECTIONS, max(1, missing // each_second))


def bring_back(server):
    """Starts Redis again if it is away, and waits until the journal is empty. Returns the seconds that it took."""
    if not server.redis.process.is_alive():
        server.redis.start()
    started = time.monotonic()
    wait_until("the empty journal", lambda: server.metric("retrieve_journal_jobs ") == 0, 300, 0.02, server.process)
    return time.monotonic() - started


def memory(lab):
    body = bodies.ORDER
    items = [name for name in ("idle", "saturated, 256 connections", "100,000 orders journaled") if lab.wants(name)]

    def one(name, problems):
        server = Gateway(lab.shop, lab.programs, name=f"gateway, {name}").start()
        if name == "idle":
            # The private plane has been asked by then, and the queue's connection is there.
            time.sleep(1)
        elif name.startswith("saturated"):
            load.closed_loop(server, server.request(body), 256, lab.seconds)
        else:
            take_away(server)
            fill(server, 100_000, RATE)
            bring_back(server)
        figures = {"rss_kib": server.process.memory_kib(), "peak_kib": server.process.memory_kib("VmHWM")}
        load.require_acceptance(server, server.name, sum(result["bad"] for result in server.loads), problems)
        figures.update(load.count(server, problems) if server.loads else {})
        server.end()
        return name, figures

    results, problems = measure(lab, items, one)
    bars = []
    for name, limit in (("idle", 32), ("saturated, 256 connections", 96), ("100,000 orders journaled", 128)):
        if value := results.worst(name, "peak_kib"):
            bars.append(Bar(f"resident memory, {name}", value / 1024, limit, at_least=False, unit=" MiB"))
    rows = [[name, mib(results.worst(name, "rss_kib")), mib(results.worst(name, "peak_kib"))] for name in results.names()]
    words = (
        "The gateway's resident memory, the highest of all rounds: a second after the start; after wrk over 256 connections; and "
        f"after an outage in which 100,000 orders of {ORDER_BYTES:,} bytes came at {RATE:,} a second and were drained."
    )
    return Section("memory", "Memory", words, [table(["gateway on Redis", "MiB at the end", "peak MiB"], rows)], bars, problems, results.rows)


# --- depth ----------------------------------------------------------------------------------------------------

DEPTHS = (0, 10_000, 100_000, 300_000)
STEADY_RATE = 2000
STEADY_SECONDS = 4


def depth(lab):
    def one(jobs, problems):
        settings = {"RETRIEVE_JOURNAL_LIMIT": "64GiB"}
        name = f"{jobs:,} orders"
        server = Gateway(lab.shop, lab.programs, settings=settings, name=f"gateway, {name} in the journal").start()
        take_away(server)
        fill(server, jobs)
        request = server.request(bodies.ORDER)
        figures = load.open_loop(server, request, STEADY_RATE, load.CONNECTIONS, STEADY_SECONDS)
        load.require_acceptance(server, server.name, figures["bad"], problems)
        held = server.metric("retrieve_journal_jobs ")
        disk = sum(file.stat().st_size for file in (server.folder / "data").rglob("*") if file.is_file())
        server.end()
        server.start_gateway()
        figures.update(start_s=server.start_seconds, disk_kib=disk / 1024, held=held)
        seconds = bring_back(server)
        figures.update(drained_per_second=held / seconds, drain_peak_kib=server.process.memory_kib("VmHWM"))
        figures.update(load.count(server, problems))
        server.end()
        return name, figures

    results, problems = measure(lab, list(DEPTHS), one)
    head = ["already in the journal", "p50 ms", "p99 ms", "p99.9 ms", "CPU µs", "peak MiB", "on disk MiB"]
    head += ["start s", "drained/s", "peak MiB, start and drain"]
    rows = []
    for name in results.names():
        median, worst = (lambda column: results.median(name, column)), (lambda column: results.worst(name, column))
        row = [name, milliseconds(median("p50_us")), milliseconds(median("p99_us")), milliseconds(worst("p99_9_us"))]
        row += [significant(median("cpu_us")), mib(worst("peak_kib")), mib(worst("disk_kib")), significant(worst("start_s"))]
        rows.append([*row, f"{median('drained_per_second'):,.0f}", mib(worst("drain_peak_kib"))])
    words = (
        f"Redis is away, so many orders lie in the journal, and {STEADY_RATE:,} a second more come for {STEADY_SECONDS} s (latency from the "
        "moment when an order was due). Then the gateway is started anew, which reads the journal's index, and Redis comes back."
    )
    return Section("journal-depth", "Journal depth", words, [table(head, rows), results.counts()], [], problems, results.rows)
