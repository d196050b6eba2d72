"""Memory, and what orders that wait in the outage journal cost."""

import time

from . import bodies, load
from .contestants import Gateway
from .machine import Failure, Process, say, wait_until
from .report import Bar, Section, mib, milliseconds, significant, table
from .rounds import measure

ORDER_BYTES = 2048
RATE = 4000


def start_without_redis(server):
    """Takes Redis away, and waits until the gateway knows."""
    server.redis.kill()
    note = lambda: b"outage journal" in load.get(server.private, "/ready")[2]
    load.open_loop(server, server.request(bodies.json_order(ORDER_BYTES)), 100, 8, 1)
    wait_until("the outage", note, process=server.process)


def fill(server, jobs):
    """Sends orders at a fixed rate until so many lie in the journal."""
    body = bodies.json_order(ORDER_BYTES)
    while (missing := jobs - server.metric("retrieve_journal_jobs ")) > 0:
        rate = min(RATE, int(missing) or 1)
        load.open_loop(server, server.request(body), rate, 64, max(1, round(missing / rate)))


def bring_back(server):
    """Starts Redis again, and waits until the journal is empty. Returns the seconds that it took."""
    server.redis.start()
    started = time.monotonic()
    wait_until("the empty journal", lambda: server.metric("retrieve_journal_jobs ") == 0, 120, 0.02, server.process)
    return time.monotonic() - started


def memory(lab):
    body = bodies.json_order(ORDER_BYTES)
    items = [name for name in ("idle", "saturated, 256 connections", "100,000 orders journaled") if lab.wants(name)]

    def one(name, problems):
        server = Gateway(lab.shop, lab.programs, name=f"gateway, {name}").start()
        if name == "idle":
            # The private plane has been asked by then, and the queue's connection is there.
            time.sleep(1)
        elif name.startswith("saturated"):
            load.closed_loop(server, server.request(body), 256, lab.seconds)
        else:
            start_without_redis(server)
            fill(server, 100_000)
            bring_back(server)
        figures = {"rss_kib": server.process.memory_kib(), "peak_kib": server.process.memory_kib("VmHWM")}
        bad = sum(result["bad"] for result in server.loads)
        if bad:
            problems.append(f"{server.name}: {bad} requests were refused or failed")
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
