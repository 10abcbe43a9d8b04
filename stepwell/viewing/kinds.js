// What each kind of event looks like in a step.
const chip = (text, kind = "") => el("span", { class: "chip " + kind }, plain(text));
const copied = (id) =>
  el(
    "button",
    { type: "button", class: "id", title: "copy " + id, "aria-label": "copy " + plain(id), onclick: () => copy(id) },
    plain(short(id)),
  );
const facts = (pairs) =>
  el(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, v]) => v !== null && v !== undefined && v !== "")
      .map(([k, v]) =>
        el("div", {}, el("dt", {}, k), el("dd", {}, v instanceof Node || Array.isArray(v) ? v : plain(v))),
      ),
  );
const lazily = (summary, fill, kind = "") => {
  // what is inside comes into the page when it is opened
  const box = el("details", { class: kind }, el("summary", {}, summary));
  box.fill = () => {
    if (box.children.length === 1) box.append(...[fill()].flat());
  };
  box.addEventListener("toggle", () => box.open && box.fill());
  return box;
};
const raw = (event) => block(JSON.stringify(event, null, 1), "json", "event as JSON");
const events = (list) =>
  lazily(
    many(list.length, "event"),
    () =>
      list.map((e) =>
        el(
          "div",
          { class: "event" },
          el("span", {}, e.kind),
          " ",
          plain(e.policy || e.actor),
          " ",
          el("small", {}, e.occurred_at || ""),
          " ",
          copied(e.event_id),
          lazily("JSON", () => raw(e), "inline"),
        ),
      ),
    "events",
  );

const rated = (a, b) =>
  (a.policy || a.actor).localeCompare(b.policy || b.actor) || (a.verdict.candidate || 0) - (b.verdict.candidate || 0);
const verdict = (event) => {
  const v = event.verdict;
  const word =
    v.label ||
    (v.judgment === true
      ? "correct"
      : v.judgment === false
        ? "incorrect"
        : v.parse_status === "unparseable"
          ? "unparseable"
          : v.severity === undefined
            ? "no label"
            : "");
  const told = [
    v.scope === "window" && `steps ${v.window_from} to ${v.window_to}`,
    v.scope === "attempt" && "attempt",
    v.candidate && `sample ${v.candidate}`,
    v.confidence !== undefined && `confidence ${v.confidence.toFixed(2)}`,
    v.parse_status === "repaired" && "reply repaired",
  ].filter(Boolean);
  const box = el(
    "div",
    { class: "verdict" },
    el(
      "p",
      {},
      el("b", {}, plain(event.policy || event.actor)),
      " ",
      word && chip(word, word.replace(" ", "-")),
      v.severity !== undefined &&
        chip(["on track", "needs correction", "critical"][v.severity] || `severity ${v.severity}`, "s" + v.severity),
      " ",
      el("small", {}, told.join(", ")),
    ),
  );
  for (const d of v.detections || []) {
    box.append(
      el(
        "p",
        { class: "detection" },
        d.category && el("b", {}, plain(d.category)),
        " ",
        plain(d.evidence || ""),
        d.recovery && el("span", { class: "recovery" }, " → " + plain(d.recovery)),
      ),
    );
  }
  if (v.guidance) box.append(block(v.guidance, "said", "guidance"));
  if (v.raw && v.raw !== v.guidance) box.append(lazily("as it was said", () => block(v.raw, "said")));
  return box;
};
// Where a reply gives its command, alone on its lines or in tags; the same words in a sentence are talk.
const given = (text, command) => {
  for (let at = text.indexOf(command); at >= 0; at = text.indexOf(command, at + 1)) {
    const after = at + command.length,
      end = text.indexOf("\n", after);
    const before = at > 0 ? text.slice(text.lastIndexOf("\n", at - 1) + 1, at).trim() : "";
    const rest = text.slice(after, end < 0 ? text.length : end).trim();
    if ((!before || /[>:]$/.test(before) || command[0] === "<") && (!rest || rest[0] === "<")) return at;
  }
  return -1;
};
const command = (event) => {
  const a = event.action,
    said = (a.command || "").trim(),
    at = said ? given(a.text || "", said) : -1;
  const thought = a.thought || (at >= 0 ? a.text.slice(0, at).replace(/```\w*\s*$/, "") : a.text) || "";
  const after = !a.thought && at >= 0 ? a.text.slice(at + said.length).replace(/^\s*```/, "") : "";
  const parts = [
    a.reasoning && lazily("reasoning", () => block(a.reasoning, "thought")),
    thought.trim() && block(thought.trim(), "thought", "thought"),
  ];
  if (a.command) parts.push(block(a.command, "command", "command"));
  if (after.trim()) parts.push(block(after.trim(), "thought"));
  if (a.tool_calls && !a.command) parts.push(block(a.tool_calls, "command", "tool calls"));
  else if (a.tool_calls) parts.push(lazily("tool calls", () => block(a.tool_calls, "json")));
  if (a.parse_error) parts.push(el("p", { class: "wrong" }, "not executed: ", plain(a.parse_error)));
  return parts;
};
const observation = (event) => {
  const o = event.observation,
    text = o.raw ?? o.rendered;
  return [
    el(
      "p",
      { class: "came" },
      o.exit_code !== undefined && chip(`exit ${o.exit_code}`, o.exit_code ? "bad" : "fine"),
      o.timed_out && chip("timed out", "bad"),
      el(
        "small",
        {},
        [
          o.duration_s !== undefined && `${o.duration_s.toFixed(2)} s`,
          o.elided_chars && `${number(o.elided_chars)} characters not shown to the agent`,
          o.files_changed?.length && "changed " + plain(o.files_changed.join(", ")),
        ]
          .filter(Boolean)
          .join(" · "),
      ),
    ),
    text ? block(text, "output", "output") : el("p", {}, el("small", {}, "no output")),
    o.rendered &&
      o.raw !== undefined &&
      o.rendered !== o.raw &&
      lazily("as the agent saw it", () => block(o.rendered, "output")),
  ];
};
const label = (event, action) => {
  const own = action?.action,
    l = event.label,
    theirs = l.command || l.text || "",
    ours = own ? (l.command ? own.command : own.text) || "" : "";
  const how = [l.source, l.timing, l.resample && `resample ${l.resample}`].filter(Boolean).join(", ");
  const head = `teacher ${plain(event.policy || "")} (${how})`;
  if (own && theirs.trim() === ours.trim())
    return el("p", { class: "note" }, chip("teacher agrees", "fine"), " ", el("small", {}, head));
  return el(
    "div",
    { class: "note differs" },
    el("p", {}, chip("teacher differs", "recover"), " ", el("small", {}, head)),
    difference(ours, theirs, "from the action to the teacher's"),
  );
};
const feedback = ({ feedback: f, policy, actor }) =>
  el(
    "div",
    { class: "note feedback " + f.mode },
    el(
      "p",
      {},
      chip("feedback " + f.mode, f.mode),
      " ",
      el(
        "small",
        {},
        plain(
          [
            policy || actor,
            f.active_from !== undefined &&
              `in the prompt from step ${f.active_from}${f.active_to === undefined ? "" : ` to ${f.active_to}`}`,
            f.reason,
            f.similarity !== undefined && `similarity ${f.similarity.toFixed(2)}`,
          ]
            .filter(Boolean)
            .join(" · "),
        ),
      ),
    ),
    f.text && block(f.text, "said"),
  );
const attempt = (event, run) => {
  const a = event.attempt,
    parent = run.attempts.get(a.parent_attempt);
  const head = el(
    "p",
    {},
    chip(`attempt, round ${a.round ?? "?"}`),
    parent && el("small", {}, " what changed from round ", String(parent.attempt.round)),
    a.critique_id && el("small", {}, " answers ", copied(a.critique_id)),
  );
  return [
    head,
    parent
      ? difference(parent.attempt.code || "", a.code || "", "what changed in the solution")
      : block(a.code || "", "command", "solution"),
  ];
};
const outcome = ({ outcome: o }) => {
  const tests = o.tests || [],
    passed = tests.filter((t) => t.passed).length;
  return el(
    "div",
    { class: "note" },
    el(
      "p",
      {},
      chip(
        o.resolved === true ? "resolved" : o.resolved === false ? "not resolved" : "not graded",
        o.resolved === true ? "fine" : o.resolved === false ? "bad" : "",
      ),
      el(
        "small",
        {},
        plain(
          [
            o.grader,
            o.rule && `rule ${o.rule}`,
            o.score !== undefined && `score ${o.score.toFixed(2)}`,
            o.rerun && `rerun ${o.rerun}`,
          ]
            .filter(Boolean)
            .join(" · "),
        ),
      ),
    ),
    tests.length > 0 &&
      lazily(`tests: ${passed} of ${tests.length} passed`, () =>
        el(
          "table",
          { class: "tests" },
          el(
            "tbody",
            {},
            tests.map((t) =>
              el(
                "tr",
                {},
                el("th", { scope: "row" }, plain(t.name || "")),
                el("td", {}, plain(t.group || "")),
                el("td", {}, chip(t.passed ? "passed" : "failed", t.passed ? "fine" : "bad")),
              ),
            ),
          ),
        ),
      ),
  );
};
const whichever = (event) =>
  el(
    "div",
    { class: "note" },
    el("p", {}, chip(event.kind), " ", el("small", {}, plain(event.policy || event.actor))),
    facts(
      Object.entries(event[event.kind] || {})
        .filter(([k]) => k !== "text")
        .map(([k, v]) => [k.replaceAll("_", " "), shown(v)]),
    ),
    event[event.kind]?.text && block(event[event.kind].text, "said"),
  );
