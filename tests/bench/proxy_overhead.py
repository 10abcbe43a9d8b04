"""What the recording proxy adds to a call: an upstream that answers at once, called directly and through the proxy.

    python -m tests.bench.proxy_overhead [CALLS]

Prints one line a kind of call and number of callers: p50 and p95 of both, interleaved in one run, what the proxy adds, and the
proxy's processor time per call. Each caller is one trajectory of 20 steps whose prompt grows by 1,500 characters a step, then
the next; the journal is on the disk of the temporary folder, whose fsync alone is measured first.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

from stepwell.lake import Lake
from stepwell.proxy.run import Settings, serve

STEPS = 20
SEEN = "a line of output\n" * 90


async def one(session: aiohttp.ClientSession, url: str, body: dict[str, Any]) -> float:
    """Seconds of one call, its reply read to the end."""
    began = time.perf_counter()
    async with session.post(url, json=body) as reply:
        await reply.read()
        assert reply.status == 200
    return time.perf_counter() - began


async def caller(session: aiohttp.ClientSession, bases: dict[str, str], name: str, calls: int, stream: bool) -> Any:
    """Latencies of each base, called in turns with the same prompts."""
    found: dict[str, list[float]] = {k: [] for k in bases}
    messages: list[dict[str, str]] = []
    for n in range(calls):
        if n % STEPS == 0:
            messages = [{"role": "system", "content": "s" * 2000}, {"role": "user", "content": f"task {name} {n}"}]
        body = {"model": "m", "messages": messages, "stream": stream}
        for kind, base in bases.items():
            url = base.format(name=f"{name}-{n // STEPS}") + "/chat/completions"
            found[kind].append(await one(session, url, body))
        said = {"role": "assistant", "content": f"reply 0 to {len(messages)}"}
        messages = [*messages, said, {"role": "user", "content": SEEN}]
    return found


async def measure(upstream: str, proxy: str, pid: int, calls: int) -> None:
    """The rounds, one line each."""
    bases = {"direct": upstream, "proxied": proxy + "/bench/{name}/0/v1"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await caller(session, bases, "warm", STEPS, False)
        for stream in (False, True):
            for n in (1, 16):
                busy = _cpu(pid)
                names = [f"{'stream' if stream else 'whole'}-{n}-{i}" for i in range(n)]
                parts = await asyncio.gather(*(caller(session, bases, k, calls // n, stream) for k in names))
                spent = (_cpu(pid) - busy) / (calls // n * n)
                times = {k: sorted(1000 * t for p in parts for t in p[k]) for k in bases}
                cuts = {k: (statistics.median(v), v[int(0.95 * len(v))]) for k, v in times.items()}
                told = ", ".join(f"{k} p50 {a:.2f} ms p95 {b:.2f} ms" for k, (a, b) in cuts.items())
                added = [b - a for a, b in zip(*cuts.values(), strict=True)]
                what = f"{'streamed' if stream else 'whole'}, {n} at once, {calls // n * n} calls"
                print(f"{what}: {told}; added p50 {added[0]:.2f} p95 {added[1]:.2f} ms; ", end="")
                print(f"{1000 * spent:.2f} ms of the proxy's processor a call", flush=True)


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _fsync(folder: str) -> str:
    times = []
    with open(Path(folder) / "probe", "ab") as file:
        for _ in range(100):
            began = time.perf_counter()
            file.write(b"x" * 2000)
            file.flush()
            os.fsync(file.fileno())
            times.append(1000 * (time.perf_counter() - began))
    return f"fsync of 2 kB: p50 {statistics.median(times):.2f} ms, p95 {sorted(times)[95]:.2f} ms"


def _started(*arguments: str) -> tuple[subprocess.Popen[str], str]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def main() -> None:
    """Run the rounds, or be the proxy."""
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(Lake(sys.argv[2]), Settings(sys.argv[3], port=0), lambda url, _: print(url, flush=True)))
        return
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 800
    with tempfile.TemporaryDirectory() as scratch:
        print(_fsync(scratch), flush=True)
        upstream, url = _started("tests.proxy_upstream")
        proxy, address = _started("tests.bench.proxy_overhead", "serve", f"{scratch}/lake", url)
        try:
            asyncio.run(measure(url, address, proxy.pid, calls))
        finally:
            proxy.terminate()
            proxy.communicate()
            upstream.communicate()


if __name__ == "__main__":
    main()
