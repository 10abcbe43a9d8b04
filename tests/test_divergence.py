"""How far a student is from a teacher on its own turns, against the sum over prompts worked out one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_dagger import mixed
from transformers import AutoModelForCausalLM

from jobs.divergence import measured
from stepwell.conversation import REPLAYED, prompts, said
from stepwell.errors import UsageError
from stepwell.lake import Lake
from stepwell.log import EventLog
from stepwell.rendering import Renderer

BASE = "jobs/base"


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    lake = Lake(str(tmp_path_factory.mktemp("divergence")))
    mixed(lake, n=6)
    return lake


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base with noise on its weights."""
    folder = tmp_path_factory.mktemp("other") / "model"
    model = AutoModelForCausalLM.from_pretrained(BASE)
    torch.manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            weights += 0.02 * torch.randn_like(weights)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (Path(BASE) / name).is_file():
            (folder / name).write_bytes((Path(BASE) / name).read_bytes())
    return folder


def test_a_model_is_no_way_from_itself(played: Lake) -> None:
    found = measured(played, corpus(played), BASE, BASE)
    assert found["all"].value == 0
    assert found["all"].n > 0


def test_the_figure_is_that_of_every_prompt_by_itself(played: Lake, other: Path) -> None:
    renderer = Renderer.load(BASE)
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval() for path in (BASE, other)]
    total, n = 0.0, 0
    for prompt in prompts(EventLog(played).read(columns=list(REPLAYED))):
        if prompt.rows["turn"][0]["turn"]["chosen"] == "agent":
            reply = said(prompt.rows["action"][0]["action"]["text"], [])
            weights = [0.0] * sum(m["role"] == "assistant" for m in prompt.messages)
            rendered = renderer.encode([*prompt.messages, reply], [*weights, 1.0])
            logs = []
            for model in models:
                with torch.no_grad():
                    logits = model(input_ids=torch.tensor([rendered.input_ids])).logits[0, :-1].double().log_softmax(-1)
                logs.append(sum(logits[i - 1, t].item() for i, t in enumerate(rendered.labels) if t >= 0))
            total, n = total + logs[0] - logs[1], n + rendered.n_trained
    found = measured(played, corpus(played), BASE, str(other))
    assert found["all"].n == n
    assert found["all"].value == pytest.approx(total / n, abs=1e-4)
    by_prefix = [figure.n for name, figure in found.items() if name.startswith("student")]
    assert sum(by_prefix) == n
    assert found["beta 0.5"].n == n


def test_what_cannot_be_compared_is_refused(played: Lake, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((Path(BASE) / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(UsageError, match="differ in tokenizer or template"):
        measured(played, corpus(played), BASE, str(tmp_path))
    with pytest.raises(UsageError, match="no turn in corpus 'nothing'"):
        measured(played, "nothing", BASE, BASE)


def corpus(lake: Lake) -> str:
    return str(EventLog(lake).read(kinds=["start"], columns=["corpus"]).column(0)[0])
