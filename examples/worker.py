#!/usr/bin/env python3
"""One of any number of workers that handle a gateway's jobs. docs/workers.md says why it does what it does.

From Redis (pip install redis): REDIS_URL=redis://127.0.0.1:6379 python3 worker.py
From the embedded queue:        python3 worker.py --from http://127.0.0.1:9090
"""
import json
import os
import signal
import socket
import sys
import time
import urllib.request

APP = os.environ.get("APP", "default")
GROUP = os.environ.get("GROUP", "workers")
NAME = os.environ.get("NAME", f"{socket.gethostname()}-{os.getpid()}")
MAX_TRIES = int(os.environ.get("MAX_TRIES", "5"))
CLAIM_IDLE_MS = int(os.environ.get("CLAIM_IDLE_MS", "60000"))  # longer than any job takes
WORK_SECONDS = float(os.environ.get("WORK_SECONDS", "0"))
JOBS, RESULTS, PARKED = (f"retrieve:{{{APP}}}:{name}" for name in ("jobs", "results", "parked"))
DONE = f"retrieve:{{{APP}}}:done:"  # and the job's id
DONE_SECONDS = 24 * 3600
stopping = False


def stop(_signal, _frame):
    global stopping
    stopping = True  # the job in hand is finished first


def handle(job):
    """Your work. It may run twice for one job, so let job["id"] be the key of what it does. Raise if it fails."""
    order = job["data"]["data"]["order"]["id"]
    time.sleep(WORK_SECONDS)
    return f"order {order} handled"


def work_on_redis(client):
    cursor, next_claim = "0-0", 0.0
    while not stopping:
        entries = []
        if time.monotonic() >= next_claim:  # first what a dead worker left, and what failed before
            cursor, entries, *_ = client.xautoclaim(JOBS, GROUP, NAME, CLAIM_IDLE_MS, cursor, count=1)
            if not entries and cursor == "0-0":
                next_claim = time.monotonic() + min(1, CLAIM_IDLE_MS / 1000)
        if not entries:
            for _, entries in client.xreadgroup(GROUP, NAME, {JOBS: ">"}, count=1, block=1000) or []:
                pass
        for entry, fields in entries:
            work_on(client, entry, (fields or {}).get("job"))
    if not client.xpending_range(JOBS, GROUP, "-", "+", 1, NAME):
        client.xgroup_delconsumer(JOBS, GROUP, NAME)  # safe, since nothing is left under this name


def work_on(client, entry, text):
    tries = client.xpending_range(JOBS, GROUP, entry, entry, 1)
    if not tries or tries[0]["consumer"] != NAME:
        return  # another worker has it
    tries = tries[0]["times_delivered"]
    job = read(text)
    if client.exists(DONE + job["id"]):
        client.xack(JOBS, GROUP, entry)  # done before, by a worker that was too slow to say so
        return
    try:
        if tries > MAX_TRIES:
            raise RuntimeError(f"given up after {MAX_TRIES} tries that ended without a word")
        status, message = "done", handle(job)
    except Exception as error:
        status, message = ("parked" if tries >= MAX_TRIES else "failed"), f"{type(error).__name__}: {error}"
    with client.pipeline(transaction=True) as transaction:
        result = {"job_id": job["id"], "jobStatus": status, "message": message}
        transaction.xadd(RESULTS, result, maxlen=100_000, approximate=True)
        if status == "parked":
            transaction.xadd(PARKED, {"job": text or "", "entry": entry, "tries": tries, "message": message})
        if status == "done":
            transaction.set(DONE + job["id"], 1, ex=DONE_SECONDS)
        if status != "failed":  # what failed stays pending, and is claimed again after CLAIM_IDLE_MS
            transaction.xack(JOBS, GROUP, entry)
        transaction.execute()


def read(text):
    try:
        return {"id": "", **json.loads(text)}
    except (TypeError, ValueError):
        return {"id": ""}  # an entry that is no job was put there by somebody else; handling it fails


def request(url, body=None):
    headers = {"content-type": "application/json"}
    if token := os.environ.get("RETRIEVE_ADMIN_TOKEN"):
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return answer.read().decode()


def work_on_http(gateway):
    """One reader for one queue: positions are acknowledged in order, so jobs are handled in order."""
    while not stopping:
        for line in request(f"{gateway}/api/jobs?limit=100&wait=1s").split("\n"):
            if stopping or not line:
                break
            entry = json.loads(line)
            status, message = try_often(entry["job"])
            if status == "parked":
                with open(os.environ.get("PARKED_FILE", "parked.ndjson"), "a") as file:
                    file.write(line + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            result = {"job_id": entry["job"]["id"], "jobStatus": status, "message": message}
            print(json.dumps(result), flush=True)
            request(f"{gateway}/api/jobs/ack", {"last": entry["id"]})


def try_often(job):
    for tries in range(1, MAX_TRIES + 1):
        try:
            return "done", handle(job)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            time.sleep(0 if tries == MAX_TRIES else min(CLAIM_IDLE_MS / 1000, 2**tries))
    return "parked", message


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)
if sys.argv[1:2] == ["--from"]:
    work_on_http(sys.argv[2].rstrip("/"))
else:
    import redis

    connection = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"), decode_responses=True)
    try:
        connection.xgroup_create(JOBS, GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):  # the group is there already
            raise
    work_on_redis(connection)
