"""What every measurement needs of this machine: packages, builds, processes and their clocks, a redis-server."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin", "LC_ALL": "C", "HOME": os.environ.get("HOME", "/")}
TICKS = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """Something that makes the figures worthless; it ends the run."""


def say(*words):
    print("benches/run:", *words, file=sys.stderr, flush=True)


# --- packages and builds --------------------------------------------------------------------------------------


def apt_install(packages):
    """Installs those of Debian's packages that are missing, without starting the services that some of them bring."""
    missing = [name for name in packages if subprocess.run(["dpkg", "-s", name], capture_output=True).returncode]
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failure(f"this isn't Debian: please install {', '.join(missing)} by hand")
    say("installing", *missing)
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    quiet = {"stdout": sys.stderr, "check": True}
    subprocess.run([*sudo, "apt-get", "update", "-q"], **quiet)
    install = ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing]
    # With a run level of 1 the packages' scripts start nothing.
    subprocess.run([*sudo, "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", *install], **quiet)


def npm_install(packages):
    """Installs packages of npm under target/lab/node, and returns that folder."""
    folder = ROOT / "target/lab/node"
    wanted = [name for name in packages if not (folder / "node_modules" / name.rpartition("@")[0]).is_dir()]
    if wanted:
        say("installing", *wanted)
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", folder, "--silent", "--no-audit", "--no-fund", *wanted]
        subprocess.run(command, stdout=sys.stderr, check=True)
    return folder


def build(*benches):
    """Builds the gateway and some of our own programs. Returns their paths by name."""
    say("building")
    # The helpers first: building them also builds the gateway, but with the features that only tests ask for.
    named = [word for name in benches for word in ("--bench", name)]
    paths = cargo("bench", "--no-run", *named) if benches else {}
    paths.update(cargo("build", "--release", "--bin", "retrieve-gateway"))
    return paths


def cargo(verb, *arguments):
    command = ["cargo", verb, "--locked", *arguments, "--message-format=json"]
    output = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    return executables(output)


def executables(output):
    """Paths by name, from the messages of cargo."""
    messages = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
    built = (message for message in messages if message.get("executable"))
    return {message["target"]["name"]: message["executable"] for message in built}


# --- processes ------------------------------------------------------------------------------------------------


class Process:
    """A program of ours and all of its descendants."""

    def __init__(self, command, folder, log, environment=None, log_to="stderr"):
        self.log = folder / log
        with open(self.log, "wb") as file:
            streams = {"stdout": subprocess.DEVNULL, "stderr": file}
            if log_to == "stdout":
                streams = {"stdout": file, "stderr": subprocess.STDOUT}
            env = {**ENVIRONMENT, **(environment or {})}
            self.child = subprocess.Popen(
                [str(word) for word in command], cwd=folder, env=env, stdin=subprocess.DEVNULL, start_new_session=True, **streams
            )

    def is_alive(self):
        return self.child.poll() is None

    def logged(self, pattern):
        """What the pattern's groups match in the log. None if nothing does."""
        found = re.search(pattern, self.log.read_text(errors="replace"), re.MULTILINE)
        return found and found.groups()

    def tail(self):
        return " | ".join(self.log.read_text(errors="replace").splitlines()[-3:])

    def pids(self):
        """The process and its descendants, of whatever depth."""
        parents = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (fields := stat_of(int(entry))):
                parents.setdefault(int(fields[1]), []).append(int(entry))
        found, pending = [], [self.child.pid]
        while pending:
            pid = pending.pop()
            found.append(pid)
            pending += parents.get(pid, [])
        return found

    def cpu(self):
        """Nanoseconds of CPU that all of it has used, and which share of them in the kernel."""
        pids = self.pids()
        total = sum(cpu_nanos(pid) for pid in pids)
        ticks = [tuple(map(int, fields[11:13])) for fields in map(stat_of, pids) if fields]
        user, kernel = map(sum, zip(*ticks)) if ticks else (0, 0)
        return total, kernel * 1_000_000_000 // TICKS

    def memory_kib(self, key="VmRSS"):
        """VmRSS or VmHWM of all of it, in KiB."""
        total = 0
        for pid in self.pids():
            try:
                status = pathlib.Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            total += sum(int(value) for value in re.findall(rf"^{key}:\s+(\d+)", status, re.MULTILINE))
        return total

    def kill(self, number=signal.SIGKILL):
        """Kills the whole group, and waits for its leader."""
        try:
            os.killpg(self.child.pid, number)
        except ProcessLookupError:
            pass
        self.child.wait(timeout=30)

    def end(self):
        """Asks it to end. Returns its exit status."""
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(timeout=30)
        finally:
            self.kill()


def stat_of(pid):
    """The fields of /proc/PID/stat behind the name. None if the process has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return None


def cpu_nanos(pid):
    """The process's CPU clock: of all its threads, also of those that have ended, to the nanosecond."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0


def wait_until(what, condition, seconds=20, pause=0.02, process=None):
    """Waits for something to become true, and returns it."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        if process and not process.is_alive():
            raise Failure(f"{what}: the process ended: {process.tail()}")
        if time.monotonic() > deadline:
            raise Failure(f"{what} didn't happen within {seconds} s" + (f": {process.tail()}" if process else ""))
        time.sleep(pause)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def accepts(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def get(address, path):
    """Status, headers and body of an answer; (0, {}, b"") if there is none."""
    connection = http.client.HTTPConnection(address, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    except OSError:
        return 0, {}, b""
    finally:
        connection.close()


# --- Redis ----------------------------------------------------------------------------------------------------


class Redis:
    """A redis-server without persistence unless options say otherwise, and a connection to it."""

    def __init__(self, folder, *options):
        self.folder, self.options = folder, options
        self.port = free_port()
        self.start()

    def start(self):
        command = ["redis-server", "--bind", "127.0.0.1", "--port", self.port, "--dir", self.folder]
        command += self.options or ["--save", "", "--appendonly", "no"]
        self.process = Process(command, self.folder, "redis.log", log_to="stdout")
        wait_until("the start of redis-server", lambda: accepts(self.port), process=self.process)
        self.connection = socket.create_connection(("127.0.0.1", self.port))
        self.answers = self.connection.makefile("rb")
        wait_until("the end of redis-server's loading", self.has_loaded, 60, process=self.process)

    def has_loaded(self):
        try:
            return self.ask("PING") == "PONG"
        except Failure:
            return False

    def ask(self, *words):
        """One command with a simple answer."""
        parts = [str(word).encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self.connection.sendall(request)
        answer = self.answers.readline()
        if answer[:1] == b"$":
            return self.answers.read(int(answer[1:]) + 2)[:-2].decode()
        if answer[:1] == b":":
            return int(answer[1:])
        if answer[:1] == b"+":
            return answer[1:].strip().decode()
        raise Failure(f"redis-server answered {answer!r} to {words[0]}")

    def kill(self):
        self.connection.close()
        self.process.kill()


# --- a place to work in ---------------------------------------------------------------------------------------


class Workshop:
    """A folder for one measurement at a time, on a disk beside the repository, where an fsync is one."""

    def __enter__(self):
        (ROOT / "target").mkdir(exist_ok=True)
        self.base = pathlib.Path(tempfile.mkdtemp(prefix="bench.", dir=ROOT / "target"))
        self.processes = []
        return self

    def __exit__(self, *_):
        self.clear()
        shutil.rmtree(self.base, ignore_errors=True)

    def folder(self):
        return pathlib.Path(tempfile.mkdtemp(dir=self.base))

    def keep(self, process):
        """Takes note of a process, so that it doesn't outlive the measurement."""
        self.processes.append(process)
        return process

    def clear(self):
        """Ends whatever still runs, and empties the folder."""
        for process in reversed(self.processes):
            process.kill()
        self.processes.clear()
        for folder in self.base.iterdir():
            shutil.rmtree(folder, ignore_errors=True)
        # What this measurement left to be written isn't the next one's burden.
        os.sync()


def version_of(*command):
    try:
        text = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    except OSError:
        return "missing"
    found = re.search(r"\d+\.\d+(\.\d+)?", text.stdout + text.stderr)
    return found[0] if found else "unknown"


def describe():
    """The machine and the commit, in one line each."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text()
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    kernel = os.uname()
    git = ["git", "describe", "--always", "--dirty", "--abbrev=7", "--exclude=*"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return f"{os.cpu_count()} x {model[1] if model else kernel.machine}, Linux {kernel.release}", commit or "unknown"
