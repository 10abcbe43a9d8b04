// What holds for a run as a whole: its task, how it ended, its figures along the way, what judged and trained it.
const SVG = "http://www.w3.org/2000/svg";
const draw = (tag, attributes, ...children) => {
  const made = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([k, v]) => made.setAttribute(k, v));
  made.append(...children);
  return made;
};
const payload = (run, kind) => run.events.findLast((e) => e.kind === kind)?.[kind] || {};

const added = (all, name) => all.reduce((n, r) => n + (r[name] || 0), 0);

// What acting took, as `trajectories` counts it: calls of critics and teachers are not the run's own.
const used = (list) => list.filter((e) => ["action", "attempt"].includes(e.kind) && e.usage).map((e) => e.usage);

const along = (run) => {
  const spent = rows.map((key) => used(run.steps.get(key)?.events || []));
  const sum = (name) => spent.map((all) => added(all, name));
  let total = 0;
  const tokens = sum("tokens_in"),
    cost = sum("cost_usd").map((c) => (total += c));
  const most = tokens.reduce((a, b) => Math.max(a, b), 0),
    x = (i) => ((i + 0.5) * 1000) / rows.length;
  const wide = Math.max(1.5, Math.min(12, 500 / rows.length));
  const line = (values, top) =>
    values.map((v, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${(60 - (v / top) * 54).toFixed(1)}`).join("");
  const ticks = (test, y) =>
    rows.map((key, i) => (run.steps.has(key) && test(run.steps.get(key)) ? `M${x(i).toFixed(1)} ${y}v7` : "")).join("");
  const failed = rows.filter((k) => run.steps.get(k)?.failed).length,
    wrong = rows.filter((k) => run.steps.get(k)?.mistaken).length;
  const parts = [
    most > 0 && `up to ${number(most)} prompt tokens a step`,
    total > 0 && `$${total.toFixed(4)} of calls`,
    `${many(failed, "step")} with errors`,
    `${wrong} with mistakes`,
  ].filter(Boolean);
  const drawn = most > 0 || total > 0,
    picture = draw("svg", {
      viewBox: drawn ? "0 0 1000 80" : "0 58 1000 22",
      class: drawn ? "high" : "low",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": "along the steps: " + parts.join(", "),
    });
  if (most > 0) picture.append(draw("path", { class: "tokens-line", d: line(tokens, most) }));
  if (total > 0) picture.append(draw("path", { class: "cost-line", d: line(cost, total) }));
  picture.append(
    draw("path", { class: "error-ticks", "stroke-width": wide, d: ticks((s) => s.failed, 62) }),
    draw("path", { class: "mistake-ticks", "stroke-width": wide, d: ticks((s) => s.mistaken, 71) }),
  );
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    go(Math.min(rows.length - 1, Math.floor(((event.clientX - box.left) / box.width) * rows.length)));
  });
  return el(
    "figure",
    {},
    picture,
    el(
      "figcaption",
      {},
      most > 0 && el("span", { class: "key tokens-line" }, "prompt tokens"),
      total > 0 && el("span", { class: "key cost-line" }, "cost so far"),
      el("span", { class: "key error-ticks" }, "errors"),
      el("span", { class: "key mistake-ticks" }, "mistakes"),
      el("span", {}, parts.join(" · ")),
    ),
  );
};

const overview = (run, prefix) => {
  const task = payload(run, "task"),
    start = payload(run, "start"),
    end = payload(run, "end"),
    graded = run.whole.filter((e) => e.kind === "outcome");
  const acted = Object.entries(
    Object.groupBy(
      [...run.steps.values()].filter((s) => s.action),
      (s) => s.action.actor,
    ),
  ).map(([who, all]) => `${all.length} by ${who === "agent" && run.mixed ? "student" : who}`);
  const instructions = run.whole
    .filter((e) => e.kind === "instruction")
    .sort((a, b) => (a.instruction.position ?? 0) - (b.instruction.position ?? 0));
  const usages = used(run.events),
    add = (name) => (usages.some((u) => u[name] !== undefined) ? added(usages, name) : undefined);
  const count = (n, unit = "") => (n === undefined ? undefined : number(n) + unit),
    cost = end.cost_usd ?? add("cost_usd");
  const box = el(
    "section",
    { class: "whole", "aria-labelledby": prefix + "title" },
    el(
      prefix ? "h2" : "h1",
      { id: prefix + "title" },
      plain(start.task_id || task.task_id || "trajectory"),
      " ",
      copied(run.id),
    ),
    graded.map(outcome),
    facts([
      ["corpus", run.corpus],
      ["agent", start.agent],
      ["model", start.model],
      [
        "run",
        [
          start.run_id,
          start.arm && `arm ${start.arm}`,
          start.iteration !== undefined && `iteration ${start.iteration}`,
          start.seed !== undefined && `seed ${start.seed}`,
        ]
          .filter(Boolean)
          .join(", "),
      ],
      ["steps", `${run.steps.size}${acted.length ? `: ${acted.join(", ")}` : ""}`],
      ["ended", end.exit_status],
      [
        "tokens",
        [count(end.tokens_in ?? add("tokens_in"), " in"), count(end.tokens_out ?? add("tokens_out"), " out")]
          .filter(Boolean)
          .join(", "),
      ],
      ["cost", cost === undefined ? undefined : `$${cost.toFixed(4)}`],
      ["took", end.duration_s === undefined ? undefined : `${end.duration_s.toFixed(1)} s`],
      ["continues", start.parent_trajectory && [copied(start.parent_trajectory), ` from step ${start.fork_step}`]],
      [
        "events",
        `version ${data.version}${run.n_retracted ? `; ${run.n_retracted} superseded or redacted are not shown` : ""}`,
      ],
    ]),
  );
  if (rows.length) box.append(along(run));
  run.whole
    .filter((e) => e.kind === "verdict")
    .sort(rated)
    .forEach((e) => box.append(verdict(e)));
  if (task.statement) box.append(lazily("task", () => block(task.statement, "said")));
  if (instructions.length)
    box.append(
      lazily(`${many(instructions.length, "message")} before the first step`, () =>
        instructions.flatMap(({ instruction: i }) => [
          el("p", {}, chip(i.role || ""), i.is_demo && chip("demonstration")),
          block(i.content || "", "said"),
        ]),
      ),
    );
  if (end.submission) box.append(lazily("submission", () => block(end.submission, "output", "submission")));
  run.whole
    .filter((e) => !["task", "start", "instruction", "verdict", "end", "outcome"].includes(e.kind))
    .forEach((e) => box.append(e.kind === "feedback" ? feedback(e) : whichever(e)));
  if (run.datasets.length)
    box.append(
      lazily(`in ${many(run.datasets.length, "dataset")}`, () =>
        el(
          "table",
          {},
          el(
            "thead",
            {},
            el(
              "tr",
              {},
              ["dataset", "models", "rows", "tokens in the loss", ""].map((t) => el("th", { scope: "col" }, t)),
            ),
          ),
          el(
            "tbody",
            {},
            run.datasets.map((d) =>
              el(
                "tr",
                {},
                el("th", { scope: "row" }, plain(`${d.name}@${d.version}`)),
                el("td", {}, plain(d.models.join(", ") || "none yet")),
                el("td", {}, String(d.rows.length)),
                el("td", {}, `${number(added(d.rows, "n_trained_tokens"))} of ${number(added(d.rows, "n_tokens"))}`),
                el(
                  "td",
                  {},
                  plain(
                    [
                      d.note,
                      ...d.rows.map(
                        (r) =>
                          r.note ||
                          (r.n_outside
                            ? `row ${short(r.row_id)}: ${r.n_outside} trained tokens outside of replies`
                            : ""),
                      ),
                    ]
                      .filter(Boolean)
                      .join("; "),
                  ),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  if (run.whole.length) box.append(events(run.whole));
  return box;
};
