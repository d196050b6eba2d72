"""What came of it: medians, ratios within a round, bars, Markdown, JSON, and the tables of docs/performance.md."""

import dataclasses
import json
import re
import statistics

from .machine import ROOT, Failure

PAGE = ROOT / "docs/performance.md"


@dataclasses.dataclass
class Bar:
    """What is demanded. `limit` is a least value if `at_least`, and else a greatest one."""

    what: str
    value: float
    limit: float
    at_least: bool = True
    unit: str = ""

    @property
    def is_met(self):
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def shown(self):
        demanded = f"{'≥' if self.at_least else '≤'} {self.limit:g}{self.unit}"
        return [self.what, demanded, f"{significant(self.value)}{self.unit}", "met" if self.is_met else "**MISSED**"]


@dataclasses.dataclass
class Section:
    """One scenario's results."""

    key: str
    title: str
    words: str
    tables: list = dataclasses.field(default_factory=list)
    bars: list = dataclasses.field(default_factory=list)
    problems: list = dataclasses.field(default_factory=list)
    measurements: list = dataclasses.field(default_factory=list)

    def markdown(self):
        blocks = [self.words, *self.tables]
        if self.bars:
            blocks.append(table(["bar", "demanded", "measured", ""], [bar.shown() for bar in self.bars]))
        if self.problems:
            blocks.append("**FAILED**\n\n" + "\n".join(f"- {problem}" for problem in self.problems))
        return "\n\n".join(blocks)


def table(head, rows):
    """A Markdown table: the first column to the left, figures to the right."""
    aligned = ["---"] + ["---" if head[column] == "" else "--:" for column in range(1, len(head))]
    lines = [head, aligned, *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def significant(value, digits=3):
    """So many digits, without an exponent: 12,345; 1,230; 12.3; 0.0123."""
    if value is None:
        return "-"
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{float(f'{value:.{digits}g}'):g}"


def milliseconds(microseconds):
    return "-" if microseconds is None else significant(microseconds / 1000)


def mib(kib):
    return "-" if kib is None else f"{kib / 1024:.1f}"


class Results:
    """Measurements by name and round."""

    def __init__(self):
        self.rows = []

    def add(self, name, round_number, result):
        self.rows.append({"name": name, "round": round_number, **result})

    def names(self):
        return list(dict.fromkeys(row["name"] for row in self.rows))

    def values(self, name, column):
        return [row[column] for row in self.rows if row["name"] == name and row.get(column) is not None]

    def median(self, name, column):
        values = self.values(name, column)
        return statistics.median(values) if values else None

    def worst(self, name, column):
        return max(self.values(name, column), default=None)

    def total(self, name, column):
        return sum(self.values(name, column))

    def ratios(self, name, base, column="per_second"):
        """In each round, so that what all contestants of a round met alike drops out."""
        by_round = {row["round"]: row[column] for row in self.rows if row["name"] == base}
        own = [(row["round"], row[column]) for row in self.rows if row["name"] == name]
        return [value / by_round[number] for number, value in own if by_round.get(number)]

    def ratio(self, name, base, column="per_second"):
        ratios = self.ratios(name, base, column)
        return statistics.median(ratios) if ratios else None

    def shown_ratio(self, name, base):
        ratios = self.ratios(name, base)
        if not ratios:
            return "-"
        spread = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
        return f"{statistics.median(ratios):.2f}{spread}"

    def ratio_bar(self, what, name, base, limit):
        """A bar on a ratio, in a list: an empty one if one of the two wasn't measured."""
        value = self.ratio(name, base)
        return [] if value is None else [Bar(what, value, limit)]

    def counts(self):
        """The table of exact counts."""
        rows = []
        for name in self.names():
            if not self.values(name, "stored"):
                continue
            uncounted = max(row["stored"] - row["answered_in_all"] for row in self.rows if row["name"] == name)
            allowed = self.worst(name, "slack_in_all")
            rows.append([name, self.total(name, "answered_in_all"), self.total(name, "stored"), uncounted, allowed])
        return table(["stored, warm-up included", "answered 200", "entries", "most uncounted in a round", "allowed"], rows)


def about(facts):
    """How the figures came about, in one line."""
    return f"*{facts['date']}, commit {facts['commit']}, `{facts['settings']}`; {facts['machine']}; {facts['versions']}.*"


def as_markdown(sections, facts):
    return "\n\n".join([f"## {section.title}\n\n{section.markdown()}" for section in sections] + [about(facts)])


def write(sections, facts):
    """Puts each section between its markers in docs/performance.md."""
    page = PAGE.read_text()
    for section in sections:
        begin, end = f"<!-- {section.key} -->", f"<!-- /{section.key} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(page):
            raise Failure(f"{PAGE.name} has no {begin} … {end}")
        text = f"{begin}\n{section.markdown()}\n\n{about(facts)}\n{end}"
        page = pattern.sub(lambda _: text, page)
    PAGE.write_text(page)


def as_json(sections, facts):
    described = []
    for section in sections:
        bars = [{**dataclasses.asdict(bar), "is_met": bar.is_met} for bar in section.bars]
        described.append({
            "scenario": section.key,
            "bars": bars,
            "problems": section.problems,
            "measurements": section.measurements,
        })
    return json.dumps({**facts, "scenarios": described}, indent=1)
