"""A model behind any server that speaks the OpenAI chat protocol, as a policy."""

from __future__ import annotations

from stepwell.chat import Backend, Call, Failure
from stepwell.ids import canonical
from stepwell.rollout.policies import Reply, View
from stepwell.spending import Prices

_TOKEN_BYTES = 1
"""Bytes a token has at least, for the most a prompt can cost."""


class Endpoint:
    """Greedy at temperature 0, else sampled with a seed that follows from the turn.

    Retries, timeouts and rate limits are the backend's (`stepwell.chat.OpenAIBackend`). A call that fails for good is a
    reply without text whose `finish` is the failure's reason.
    """

    def __init__(
        self,
        backend: Backend,
        name: str,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        max_tokens: int = 2048,
        prices: Prices | None = None,
    ) -> None:
        self.name, self.chat = name, backend
        self.backend = type(backend).__name__
        self.temperature, self.top_p, self.max_tokens, self.prices = temperature, top_p, max_tokens, prices

    async def reply(self, view: View) -> Reply:
        """Ask the server."""
        seed = view.sampling_seed if self.temperature > 0 else None
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens, "seed": seed}
        call = Call(
            tuple(view.messages), self.max_tokens, self.temperature, seed, top_p=self.top_p, tools=tuple(view.tools)
        )
        said = await self.chat.complete(call)
        if isinstance(said, Failure):
            return Reply(None, said.reason, detail=said.detail)
        usage = {
            "call_id": said.call_id, "tokens_in": said.tokens_in, "tokens_out": said.tokens_out,
            "cache_read": said.cache_read, "reasoning": said.reasoning, "latency_s": said.latency_s,
            "finish": said.finish, "sampling": canonical(sampling).decode(),
        }  # fmt: skip
        if self.prices is not None and said.tokens_in is not None and said.tokens_out is not None:
            usage["cost_usd"] = self.prices.cost(said.tokens_in, said.cache_read or 0, said.tokens_out)
            usage["price_policy"] = self.prices.name
        return Reply(said.text, said.finish or "stop", usage, said.tool_calls, said.thinking)

    def most_cost(self, view: View) -> float:
        """Cost of the prompt at one token a byte, and of the longest reply."""
        if self.prices is None:
            return 0.0
        n_bytes = len(canonical(list(view.messages))) + len(canonical(list(view.tools)))
        return self.prices.cost(n_bytes // _TOKEN_BYTES, 0, self.max_tokens)

    async def close(self) -> None:
        """Close the connections to the server."""
        await self.chat.close()
