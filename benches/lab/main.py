"""The command line of benches/run."""

import argparse
import dataclasses
import datetime
import signal
import sys

from . import append, bodies, contestants, disk, instructions, journal, machine, open_loops, pairs, report, saturated
from .machine import Failure, Workshop, say

SCENARIOS = {
    "throughput": saturated.throughput,
    "connections": saturated.connections,
    "sizes": saturated.sizes,
    "xml": pairs.xml,
    "signature": pairs.signature,
    "append": append.append,
    "open-loop": open_loops.matrix,
    "overload": open_loops.overload,
    "memory": journal.memory,
    "journal-depth": journal.depth,
    "scale": saturated.scale,
    "shards": saturated.shards,
    "disk": disk.scenario,
    "instructions": instructions.scenario,
}
HELP = """
scenarios (all of them unless some are named):
  throughput     orders of 2 KB over 64 connections: the gateway, a bare hyper server, webdis, nginx with Lua, fastify
  connections    1, 8, 64 and 256 connections
  sizes          orders of 2, 20 and 200 KB
  xml            an XML order of 2 KB beside a JSON order of 2 KB
  signature      Shopify's signature verified, beside the same orders unsigned
  append         the numbered, idempotent append beside plain pipelined XADD
  open-loop      latencies at 25, 50 and 75 % of the saturated rate: on Redis, signed, XML, embedded, Redis down, Redis back;
                 and what a bare hyper server does
  overload       five times the saturated rate; 1,000 connections for bare servers, too
  memory         idle, saturated over 256 connections, and with 100,000 orders in the outage journal
  journal-depth  what 10,000, 100,000 and 300,000 orders in the outage journal cost
  scale          10, 10,000 and 1,000,000 integrations; 10 and 100,000 allowlist entries
  shards         1, 2, 4 and 8 streams
  disk           an fsync of a batch, by how many places it is written to
  instructions   the parts of a request's path one by one, in instructions and nanoseconds

Contestants alternate in rounds, so that a noisy machine favours none; ratios are taken within a round. It installs what it
needs from Debian and npm, talks to 127.0.0.1 alone, and leaves nothing behind. Progress goes to standard error. It exits 1 if
a bar is missed, 2 if a count isn't exact or something failed.
"""


@dataclasses.dataclass
class Lab:
    """What a scenario works with."""

    shop: Workshop
    programs: dict
    seconds: int
    rounds: int
    only: list

    def wants(self, name):
        return is_wanted(name, self.only)


def is_wanted(name, only):
    """Whether --only names it, by a part of its name."""
    return not only or any(part in name for part in only)


def arguments():
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="benches/run", description=__doc__, epilog=HELP, formatter_class=formatter)
    parser.add_argument("scenario", nargs="*", help="what to measure; see below")
    parser.add_argument("--seconds", type=int, default=8, help="length of one measurement (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    parser.add_argument("--only", default="", metavar="A,B", help="only contestants whose names contain one of these")
    parser.add_argument("--json", action="store_true", help="print JSON with every measurement in place of Markdown")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    chosen = parser.parse_args()
    if unknown := [name for name in chosen.scenario if name not in SCENARIOS]:
        parser.error(f"no scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    if chosen.seconds < 1 or chosen.rounds < 1:
        parser.error("--seconds and --rounds count from 1")
    return chosen


def install(names, only):
    """What the chosen scenarios need."""
    packages = ["wrk", "redis-server"] + (["valgrind"] if "instructions" in names else [])
    wanted = lambda name: "throughput" in names and is_wanted(name, only)
    if wanted(contestants.Webdis.name):
        packages.append("webdis")
    if wanted(contestants.NginxLua.name):
        packages += ["nginx", "libnginx-mod-http-lua", "lua-nginx-redis"]
    needs_node = wanted("fastify, ioredis, 1 process") or wanted("fastify, ioredis, 2 processes")
    if needs_node and machine.version_of("node", "--version") == "missing":
        packages += ["nodejs", "npm"]
    machine.apt_install(packages)
    return machine.npm_install(["fastify@5", "ioredis@5"]) if needs_node else machine.ROOT / "target/lab/node"


def main():
    chosen = arguments()
    # So that `finally` and `with` clean up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    names = chosen.scenario or list(SCENARIOS)
    only = [part for part in chosen.only.split(",") if part]
    bodies.check()
    sections, is_failed = [], False
    try:
        node = install(names, only)
        programs = {**machine.build("bare_hyper", "open_loop", "append", "parts"), "node": node}
        # Taken now, because a commit may be made while it runs.
        hardware, commit = machine.describe()
        facts = {
            "date": datetime.date.today().isoformat(),
            "commit": commit,
            "settings": f"--rounds {chosen.rounds} --seconds {chosen.seconds}",
            "machine": hardware,
            "versions": contestants.versions(node),
        }
        with Workshop() as shop:
            lab = Lab(shop, programs, chosen.seconds, chosen.rounds, only)
            for name in names:
                say(f"--- {name}")
                try:
                    sections.append(SCENARIOS[name](lab))
                except Failure as failure:
                    # What the others measured in hours isn't lost by that.
                    say(f"FAILED: {name}:", failure)
                    is_failed = True
                    shop.clear()
        if chosen.write:
            report.write(sections, facts)
    except Failure as failure:
        say("FAILED:", failure)
        return 2
    except KeyboardInterrupt:
        return 130
    print(report.as_json(sections, facts) if chosen.json else report.as_markdown(sections, facts))
    for section in sections:
        for problem in section.problems:
            say(f"FAILED: {section.key}:", problem)
    if is_failed or any(section.problems for section in sections):
        return 2
    return 0 if all(bar.is_met for section in sections for bar in section.bars) else 1
