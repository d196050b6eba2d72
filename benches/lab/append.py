"""The numbered append beside plain pipelined XADD: same documents, one connection, the same redis-server."""

import json
import re
import resource
import subprocess

from .contestants import STREAM
from .machine import ENVIRONMENT, Failure, Redis, cpu_nanos, say
from .report import Results, Section, significant, table

DOCUMENT_BYTES = 2400
WAYS = {
    "numbered": "numbered, from tasks",
    "plain": "plain XADD, from the same tasks",
    "pipelined": "plain XADD, nobody waits",
}


def append(lab):
    results, problems = Results(), []
    redis = lab.shop.keep(Redis(lab.shop.folder()))
    for tasks in (64, 512):
        # The first one warms up, and tells how many documents a second of measuring takes.
        warm = run(lab, redis, "numbered", tasks, 20_000, 32, problems)
        documents = max(20_000, int(warm["per_second"] * lab.seconds))
        size = warm["batch"]
        for number in range(1, 2 * lab.rounds + 1):
            ways = list(WAYS) if number % 2 else list(WAYS)[::-1]
            for way in ways:
                result = run(lab, redis, way, tasks, documents, max(1, round(size)), problems)
                if way == "numbered":
                    size = result["batch"]
                results.add(f"{WAYS[way]}, {tasks} at once", number, result)
                say(f"round {number} of {2 * lab.rounds}: {way}, {tasks} at once: {result['per_second']:,.0f} a second")
    lab.shop.clear()
    rows, bars = [], []
    for tasks in (64, 512):
        names = {way: f"{words}, {tasks} at once" for way, words in WAYS.items()}
        for way, name in names.items():
            median = lambda column: results.median(name, column)
            row = [name, f"{median('per_second'):,.0f}", results.shown_ratio(name, names["pipelined"])]
            rows.append([*row, significant(median("batch")), significant(median("client_us")), significant(median("redis_us"))])
        for other in ("plain", "pipelined"):
            what = f"numbered append, of {WAYS[other]}, {tasks} at once"
            bars += results.ratio_bar(what, names["numbered"], names[other], 0.75)
    head = [f"documents of {DOCUMENT_BYTES:,} bytes", "a second", "of XADD, nobody waits", "in a batch", "client CPU µs", "Redis CPU µs"]
    words = (
        "Numbered batches through the gateway's own writer; the same from tasks, with a pipeline of XADDs for each batch; and "
        "pipelines as long as the numbered batches were, two on their way, for which nobody waits. CPU is for each document."
    )
    return Section("append", "The numbered append", words, [table(head, rows)], bars, problems, results.rows)


def run(lab, redis, way, tasks, documents, pipeline, problems):
    """One way, on an empty Redis."""
    redis.ask("FLUSHALL", "SYNC")
    redis.ask("CONFIG", "RESETSTAT")
    command = [lab.programs["append"], "--way", way, "--redis", f"redis://127.0.0.1:{redis.port}", "--bytes", DOCUMENT_BYTES]
    command += ["--tasks", tasks, "--documents", documents, "--pipeline", pipeline]
    own, server = resource.getrusage(resource.RUSAGE_CHILDREN), cpu_nanos(redis.process.child.pid)
    output = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=ENVIRONMENT)
    if output.returncode:
        raise Failure(f"append: {output.stderr}")
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = json.loads(output.stdout)
    stored = redis.ask("XLEN", STREAM)
    if stored != documents:
        problems.append(f"{way}: {documents} documents, but {stored} entries")
    calls = re.search(r"cmdstat_evalsha:calls=(\d+)", redis.ask("INFO", "commandstats"))
    client = spent.ru_utime + spent.ru_stime - own.ru_utime - own.ru_stime
    return {
        "per_second": documents / result["seconds"],
        "seconds": result["seconds"],
        "batch": documents / int(calls[1]) if calls else (pipeline if way == "pipelined" else None),
        "client_us": client * 1e6 / documents,
        "redis_us": (cpu_nanos(redis.process.child.pid) - server) / 1000 / documents,
        "stored": stored,
    }
