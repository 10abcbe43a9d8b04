// Events as steps: what happened in each, who said what of it, what is trained.
const shown = (value) =>
  value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
const texts = (value, into) => {
  if (typeof value === "string") into.push(value);
  else if (value && typeof value === "object") Object.values(value).forEach((v) => texts(v, into));
  return into;
};

class Step {
  constructor(run, step) {
    this.run = run;
    this.step = step;
    this.events = [];
  }
  of(kind) {
    return this.events.filter((e) => e.kind === kind);
  }
  get action() {
    return this.of("action")[0];
  }
  get failed() {
    return this.events.some(
      (e) =>
        (e.kind === "observation" && (e.observation.exit_code || e.observation.timed_out)) ||
        (e.kind === "action" && e.action.parse_error) ||
        (e.kind === "outcome" && e.outcome.resolved === false),
    );
  }
  get mistaken() {
    return this.of("verdict").some(
      ({ verdict: v }) => v.label === "mistake" || (!v.label && v.severity >= 1) || v.judgment === false,
    );
  }
  get search() {
    return (this.found ||= this.events
      .flatMap((e) => texts(e, []))
      .join("\n")
      .toLowerCase());
  }
  weight(by) {
    // 1 in the loss, 0 left out, null not decided, by what is chosen
    const [kind, name] = [by.slice(0, by.indexOf(":")), by.slice(by.indexOf(":") + 1)];
    const found =
      kind === "rule"
        ? this.of("mask")
            .filter((e) => e.mask.mask_rule === name)
            .map((e) => e.mask.weight)
        : this.events
            .flatMap((e) => this.run.replies.get(e.event_id) || [])
            .filter((r) => r.dataset.name === name)
            .map((r) => r.weight);
    return found.length ? Math.max(...found) : null;
  }
}

for (const run of data.runs) {
  run.steps = new Map();
  run.whole = [];
  run.replies = new Map();
  run.attempts = new Map();
  run.ids = new Map(run.events.map((e) => [e.event_id, e]));
  for (const event of run.events) {
    if (event.kind === "attempt") run.attempts.set(event.attempt.attempt_id, event);
    if (event.step === undefined) {
      run.whole.push(event);
      continue;
    }
    if (!run.steps.has(event.step)) run.steps.set(event.step, new Step(run, event.step));
    run.steps.get(event.step).events.push(event);
  }
  for (const dataset of run.datasets) {
    for (const row of dataset.rows) {
      for (const reply of row.replies) {
        if (!run.replies.has(reply.event)) run.replies.set(reply.event, []);
        run.replies.get(reply.event).push({ ...reply, dataset, row });
      }
    }
  }
}
const wholes = data.runs.map((run) => texts(run.whole, []).join("\n").toLowerCase());
const rows = [...new Set(data.runs.flatMap((r) => [...r.steps.keys()]))].sort((a, b) => a - b);
