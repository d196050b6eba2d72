"""What the scripts xml-conformance, xml-differential and xml-strace share."""

import os
import re
import shutil
import struct
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "target/release/examples/xml2json"
EVIDENCE = ROOT / "docs/evidence/xml.md"
HEAD = """# XML: conformance, comparison, isolation

Each section is written by its script with `--write`.
"""


def run(*command, **options):
    if subprocess.run(command, cwd=ROOT, stdout=sys.stderr, **options).returncode:
        sys.exit(f"{Path(sys.argv[0]).name}: {' '.join(map(str, command))} failed")


def build():
    """Builds the example `xml2json`, the converter behind a pipe."""
    run("cargo", "build", "--quiet", "--release", "--locked", "--example", "xml2json")
    return PROGRAM


def install(command, package):
    """A package by the system's package manager, if the command is missing."""
    if shutil.which(command):
        return
    print(f"installing {package}", file=sys.stderr)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    if shutil.which("apt-get"):
        run(*sudo, "apt-get", "update", "-q")
        run(*sudo, "apt-get", "install", "-q", "-y", "--no-install-recommends", package)
    elif shutil.which("dnf"):
        run(*sudo, "dnf", "install", "-y", package)
    elif shutil.which("apk"):
        run(*sudo, "apk", "add", package)
    else:
        sys.exit(f"please install {package}")


def commit():
    """The commit, and whether anything but the evidence differs from it."""
    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return git("rev-parse", "--short", "HEAD") + ("-dirty" if git("status", "-s", "--", ".", ":!docs/evidence") else "")


def write_section(title, text):
    """Replaces a section of docs/evidence/xml.md, with the day and the commit that it was measured on."""
    section = f"## {title}\n\n{date.today()}, commit {commit()}.\n\n{text.rstrip()}\n"
    old = EVIDENCE.read_text() if EVIDENCE.exists() else HEAD
    parts = [part.rstrip() + "\n" for part in re.split(r"(?m)^(?=## )", old)]
    others = [part for part in parts[1:] if not part.startswith(f"## {title}\n")]
    EVIDENCE.write_text("\n".join([parts[0], *sorted([*others, section])]))


class Converter:
    """The program `xml2json`, which answers one document after another."""

    def __init__(self, program, arguments=(), under=()):
        self.process = subprocess.Popen([*under, program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def convert(self, document):
        """The JSON, and the error if there is none."""
        self.process.stdin.write(struct.pack(">I", len(document)) + document)
        self.process.stdin.flush()
        answer = self.process.stdout.readline().decode("utf-8").rstrip("\n")
        if not answer:
            sys.exit(f"the program ended at {document[:200]!r}")
        return (None, answer[1:]) if answer.startswith("!") else (answer[1:], "")

    def end(self):
        self.process.stdin.close()
        return self.process.wait()
