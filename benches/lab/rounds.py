"""Contestants in alternating rounds."""

from . import load
from .machine import say
from .report import Results


def in_turn(items, round_number):
    """Another order in each round: forwards, backwards, and beginning elsewhere."""
    first = round_number // 2 % max(len(items), 1)
    turned = items[first:] + items[:first]
    return turned if round_number % 2 == 0 else turned[::-1]


def measure(lab, items, one):
    """Measures each item in each round by `one(item, problems)`, which returns a name and figures. Returns results and problems."""
    results, problems = Results(), []
    for number in range(lab.rounds):
        for item in in_turn(items, number):
            name, figures = one(item, problems)
            lab.shop.clear()
            results.add(name, number + 1, figures)
            brief = f"{figures['per_second']:,.0f} a second" if "per_second" in figures else ""
            say(f"round {number + 1} of {lab.rounds}: {name}: {brief}")
    return results, problems


def saturate(server, request, connections, seconds, problems):
    """A fresh server under wrk: a second to warm up, then the measurement, then the count."""
    load.closed_loop(server, request, connections, 1)
    load.wait_idle(server)
    result = load.closed_loop(server, request, connections, seconds)
    load.require_acceptance(server, server.name, result["bad"], problems)
    result.update(load.count(server, problems))
    server.end()
    return result
