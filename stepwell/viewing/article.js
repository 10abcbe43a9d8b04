// One step: what happened on the left, what was said of it and what is trained on the right.
const training = (step) =>
  step.events.flatMap((e) => {
    const masks =
      e.kind !== "mask"
        ? []
        : [
            el(
              "p",
              {},
              chip(e.mask.weight ? "in the loss" : "masked", e.mask.weight ? "trained" : "masked"),
              " ",
              el(
                "small",
                {},
                plain(`${e.mask.mask_rule || ""}: ${e.mask.reason || ""} `),
                (e.mask.evidence || []).slice(0, 4).map(copied),
              ),
            ),
          ];
    const replies = (step.run.replies.get(e.event_id) || []).map((r) =>
      el(
        "div",
        {},
        el(
          "p",
          {},
          chip(r.weight ? "trained" : "left out", r.weight ? "trained" : "masked"),
          " ",
          el("b", {}, plain(r.dataset.name.replace("datasets/", ""))),
          " ",
          el("small", {}, plain(`${r.row.method}, ${r.row.split}${e.kind === "action" ? "" : ", the " + e.kind}`)),
        ),
        r.tokens && lazily(many(r.tokens.length, "token"), () => tokens(r)),
      ),
    );
    return [...masks, ...replies];
  });
const INVISIBLE = { "\n": "⏎", "\t": "⇥", "\r": "␍" };
const tokens = (reply) => {
  const pre = el("pre", { class: "tokens" });
  reply.tokens.forEach((text, i) => {
    const span = el("span", { class: reply.kinds[i] === "t" ? "trained" : "masked" });
    for (const part of text.split(/([\n\t\r])/)) {
      if (INVISIBLE[part]) span.append(el("i", {}, INVISIBLE[part]), part);
      else if (part) put(span, part);
    }
    pre.append(span);
  });
  return pre;
};

const ELSEWHERE = ["turn", "verdict", "mask"]; // shown beside what happened
const ORDER = ["notice", "action", "attempt", "observation", "outcome", "hint", "reward", "label", "feedback"];
const place = (event) => (ORDER.includes(event.kind) ? ORDER.indexOf(event.kind) : ORDER.length);
const article = (run, key, prefix) => {
  const step = run.steps.get(key);
  if (!step)
    return el(
      "article",
      { class: "absent", id: `${prefix}step-${key}`, tabindex: "-1", "aria-label": `step ${key}: none` },
      "no such step",
    );
  const { action } = step,
    turn = step.of("turn")[0]?.turn,
    acting = action || step.of("attempt")[0],
    usage = acting?.usage || {};
  const who = acting?.actor || turn?.chosen || step.events[0].actor,
    weight = step.weight(by.value);
  const before = turn?.state_hash || action?.action.state_hash,
    after = step.of("observation").at(-1)?.observation.state_hash;
  const state =
    before || after
      ? el(
          "span",
          { class: "state" },
          "state ",
          before && copied(before),
          after && after !== before && [" → ", copied(after)],
        )
      : null;
  const name = `${prefix}h-${key}`;
  const head = el(
    "div",
    { class: "head" },
    el("h2", { id: name }, el("a", { href: `#step-${key}` }, `step ${key}`)),
    chip(who === "agent" && run.mixed ? "student" : who, who),
    el("small", {}, plain(acting?.policy || "")),
    turn &&
      turn.beta !== undefined &&
      el("small", {}, `${turn.rule}, β ${turn.beta}, draw ${turn.draw?.toFixed(3) ?? "none"}`),
    step.failed && chip("error", "bad"),
    step.mistaken && chip("mistake", "mistake"),
    weight !== null && chip(weight ? "trained" : "masked", weight ? "trained" : "masked"),
  );
  const left = el("div", { class: "happened" });
  const draw = {
    action: command,
    observation,
    label: (e) => label(e, action),
    feedback,
    attempt: (e) => attempt(e, run),
    outcome,
  };
  for (const event of step.events.filter((e) => !ELSEWHERE.includes(e.kind)).sort((a, b) => place(a) - place(b))) {
    left.append(...[(draw[event.kind] || whichever)(event)].flat().filter(Boolean));
  }
  const trainedOn = training(step),
    judged = step.of("verdict").sort(rated).map(verdict);
  const right = el(
    "div",
    { class: "said-of" },
    judged,
    trainedOn.length > 0 && el("div", { class: "training" }, trainedOn),
    el(
      "p",
      { class: "use" },
      [
        usage.tokens_in !== undefined && `${number(usage.tokens_in)} tokens in`,
        usage.tokens_out !== undefined && `${number(usage.tokens_out)} out`,
        usage.cost_usd !== undefined && `$${usage.cost_usd.toFixed(4)}`,
        usage.latency_s !== undefined && `${usage.latency_s.toFixed(1)} s`,
      ]
        .filter(Boolean)
        .join(" · "),
      " ",
      state,
    ),
    events(step.events),
  );
  const made = el(
    "article",
    {
      id: `${prefix}step-${key}`,
      class: weight === null ? "" : weight ? "in-loss" : "not-in-loss",
      tabindex: "-1",
      "aria-labelledby": name,
    },
    head,
    left,
    right,
  );
  return made;
};
