"""Judging with a model that answers at once: what everything but the model costs.

    python -m tests.bench.judge_overhead [TRAJECTORIES]

Prints one line a round: verdicts per second, and per second of this process's own processor time, with a server in a process
of its own and with a model in this process; and how long it takes to find that nothing is left to do.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stepwell.chat import Backend, Call, Completion, Failure, OpenAIBackend
from stepwell.critics import prompts
from stepwell.critics.judging import judge
from stepwell.critics.model_critic import ModelCritic
from stepwell.event import Event
from stepwell.lake import Lake
from stepwell.log import EventLog
from tests.chat_server import ChatServer, critique

STEPS = 40
ROUNDS = 3


def events(n: int) -> list[Event]:
    """`n` trajectories of 40 steps with outputs of about 1,500 characters."""
    found = []
    for i in range(n):
        where = (f"bench-{i}", "bench")
        found.append(Event("instruction", *where, "system", {"position": 0, "role": "user", "content": f"Task {i}."}))
        for step in range(STEPS):
            said = f"THOUGHT: look at {step}.\n\n```bash\nsed -n '{step},{step + 20}p' src/module_{i}.py\n```"
            seen = f"line {i} {step} of the file " * 60
            found.append(Event("action", *where, "agent", {"text": said}, step=step))
            found.append(Event("observation", *where, "environment", {"raw": seen, "position": 0}, step=step))
    return found


class Instant(asyncio.Protocol):
    """One connection: the same chat completion for every request, with as little work as can be."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.came = transport, b""
        with ChatServer() as one:
            body = one.answer({"messages": [{"content": "x" * 400}], "model": "instant"})
        self.answer = (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )

    def data_received(self, data: bytes) -> None:
        self.came += data
        head, found, rest = self.came.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]) if found else 0
        if found and len(rest) >= length:
            self.came = rest[length:]
            self.transport.write(self.answer)  # type: ignore[attr-defined]


async def serve() -> None:
    """Print the address and serve until the input closes."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Instant, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", flush=True)
    await asyncio.to_thread(sys.stdin.read)


class InProcess:
    """A model in this process that answers at once: what is left is everything but the model and the way to it."""

    concurrency = 16

    async def complete(self, call: Call) -> Completion | Failure:
        """The same completion as the server's."""
        await asyncio.sleep(0)
        return Completion(critique(), "in-process", 100, 100, 50, None, 0.001, "stop", None, time.time())

    async def close(self) -> None:
        """Nothing to release."""


def main() -> None:
    """Run the rounds, or be the server."""
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
        return
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 250
    command = [sys.executable, "-m", "tests.bench.judge_overhead", "serve"]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    url = server.stdout.readline().strip()
    critic = ModelCritic(prompts.load("steer-concise"), "instant")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            for number in range(ROUNDS):
                rates = []
                served, inside = (Lake(Path(scratch) / f"{number}-{name}") for name in ("served", "inside"))
                for lake in (served, inside):
                    EventLog(lake).append(events(n), "bench")
                for lake in (served, inside, inside):
                    backend: Backend = OpenAIBackend("instant", url) if lake is served else InProcess()
                    started, busy = time.perf_counter(), time.process_time()
                    done = judge(lake, critic, backend)
                    assert done.complete
                    rates.append((done.n_verdicts, time.perf_counter() - started, time.process_time() - busy))
                (made, wall, cpu), (also, wall_in, cpu_in), (_, nothing, _) = rates
                line = f"served {made / wall:.0f}/s ({made / cpu:.0f} per processor second), in process {also / wall_in:.0f}/s "
                print(f"{made} verdicts: {line}({also / cpu_in:.0f}), nothing to do {nothing:.2f} s", flush=True)
    finally:
        server.communicate()


if __name__ == "__main__":
    main()
