"""A real local server that speaks the OpenAI chat protocol, for tests and benchmarks: instant, counting, faulty on demand.

Also a program: `python -m tests.chat_server` prints its URL and serves until its input closes.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GROUPS = {
    "SPECIFICATION": ("Task Specification Violations", "Role Specification Violations", "Step Repetition",
                      "Termination Condition Unawareness"),
    "REASONING": ("Problem Misidentification", "Tool Selection Errors", "Hallucinations",
                  "Information Processing Failures"),
    "COORDINATION": ("Task Derailment", "Goal Deviation", "Context Handling Failures", "Verification Failures"),
}  # fmt: skip


def critique(guidance: str = "Keep going.", status: str = "On track") -> str:
    """A well-formed reply of a steering critic that detects nothing."""
    lines, number = [], 0
    for group, categories in GROUPS.items():
        lines.append(f"{group} ERRORS:")
        for category in categories:
            number += 1
            lines.append(f"{number}. {category}: DETECTED: No")
    return "\n".join([*lines, f"TASK_STATUS: {status}", f"OVERALL_GUIDANCE: {guidance}"])


@dataclass(frozen=True)
class Fault:
    """What is done instead of answering: a status with a body and headers, a delay, or an answer cut off or garbled."""

    status: int = 200
    body: bytes = b'{"error": {"message": "told to fail"}}'
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drop: bool = False


class ChatServer:
    """Answers `reply(body)` to every chat request, after the faults queued; `bodies` are the requests that came."""

    def __init__(self, reply: Callable[[dict[str, Any]], str] = lambda body: critique()) -> None:
        self.reply, self.faults, self.bodies = reply, deque[Fault](), list[dict[str, Any]]()
        self.delay, self.extra = 0.0, dict[str, Any]()
        self.fault_of: Callable[[dict[str, Any]], Fault | None] = lambda body: None
        self.headers: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.bodies.append(body)
                server.headers.append({k.lower(): v for k, v in self.headers.items()})
                time.sleep(server.delay)
                fault = server.faults.popleft() if server.faults else server.fault_of(body)
                if fault is not None and fault.drop:
                    self.close_connection = True
                    return
                if fault is not None:
                    time.sleep(fault.delay)
                status, data = (200, server.answer(body)) if fault is None else (fault.status, fault.body)
                headers = {} if fault is None else fault.headers
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": "application/json", **headers}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                    self.wfile.flush()
                except OSError:
                    self.close_connection = True  # the client gave up

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def answer(self, body: dict[str, Any]) -> bytes:
        """A chat completion; tokens are a quarter of the characters, half of the prompt from the cache."""
        text = self.reply(body)
        prompt = sum(len(m["content"]) for m in body["messages"]) // 4
        usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": len(text) // 4}
        usage |= {"prompt_tokens_details": {"cached_tokens": prompt // 2}}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        made = {"id": f"chat-{len(self.bodies)}", "object": "chat.completion", "created": 1, "model": body["model"]}
        return json.dumps(made | {"choices": [choice | self.extra], "usage": usage}).encode()

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


if __name__ == "__main__":
    with ChatServer() as running:
        print(running.url, flush=True)
        sys.stdin.read()
