// The page as it is moved through: steps made when they come near, keys, search, links.
const one = (selector) => document.querySelector(selector);
const CHUNK = 8;
const say = (text) => {
  one("#told").textContent = text;
};
const copy = (text) => {
  const done = navigator.clipboard ? navigator.clipboard.writeText(text) : Promise.reject(new Error("none"));
  done.then(
    () => say(`copied ${plain(text)}`),
    () => say(plain(text)),
  );
};
const by = one("#by");
const chunks = [];
let at = -1,
  hits = [],
  needle = "",
  above = false; // whether what holds for a run as a whole has it

const fill = (chunk) => {
  if (!chunk || chunk.children.length) return;
  for (let i = chunk.first; i < Math.min(chunk.first + CHUNK, rows.length); i++) {
    const made = data.runs.map((run, n) => article(run, rows[i], n ? "b-" : ""));
    chunk.append(...(made.length > 1 ? [el("div", { class: "pair" }, made)] : made));
  }
};
const watch = new IntersectionObserver(
  (seen) =>
    seen.forEach((s) => {
      if (s.isIntersecting) {
        fill(s.target);
        watch.unobserve(s.target);
      }
    }),
  { rootMargin: "1500px" },
);
const lay = () => {
  chunks.splice(0).forEach((c) => {
    watch.unobserve(c);
    c.remove();
  });
  for (let first = 0; first < rows.length; first += CHUNK) {
    const chunk = el("div", { class: "chunk" });
    chunk.first = first;
    chunk.style.setProperty("--steps", Math.min(CHUNK, rows.length - first));
    chunks.push(chunk);
  }
  one("#steps").replaceChildren(...chunks);
  chunks.forEach((c) => watch.observe(c));
};

const current = () => [...document.querySelectorAll(`#step-${rows[at]}, #b-step-${rows[at]}`)];
const go = (i, link = true) => {
  if (i === undefined || i < 0 || i >= rows.length) {
    say("no more");
    return;
  }
  at = i;
  const k = Math.floor(i / CHUNK);
  [k - 1, k, k + 1].forEach((n) => fill(chunks[n]));
  document.querySelectorAll("article.here").forEach((a) => a.classList.remove("here"));
  const here = current();
  here.forEach((a) => a.classList.add("here"));
  here[0].scrollIntoView({ block: "start" });
  here[0].focus({ preventScroll: true });
  if (link) history.replaceState(null, "", `#step-${rows[i]}`);
};
const steps = (i) => data.runs.map((r) => r.steps.get(rows[i])).filter(Boolean);
const tests = {
  step: () => true,
  error: (i) => steps(i).some((s) => s.failed),
  mistake: (i) => steps(i).some((s) => s.mistaken),
  hit: (i) => hits.includes(i),
  masked: (i) =>
    steps(i).some((s) => (by.value ? s.weight(by.value) === 0 : s.of("mask").some((e) => e.mask.weight === 0))),
};
const jump = (what, way = 1) => {
  let i = at < 0 && way < 0 ? (what === "hit" && above ? 0 : rows.length) : at;
  do i += way;
  while (i >= 0 && i < rows.length && !tests[what](i));
  if (what === "hit" && above && i < 0) {
    at = -1;
    one("#whole").scrollIntoView({ block: "start" });
    say("find above the steps");
    mark([one("#whole")]);
    return;
  }
  if (i < 0 || i >= rows.length) {
    say(
      `no ${what === "hit" ? "find" : what === "masked" ? "masked step" : what} ${way > 0 ? "after" : "before"} this`,
    );
    return;
  }
  go(i);
  if (what !== "hit") {
    say("");
    return;
  }
  say(`find in step ${hits.indexOf(i) + 1} of ${hits.length}`);
  mark(current());
};
const unfold = (inside, wanted) => {
  for (const kind of [".block.folded", "button.more"])
    inside.querySelectorAll(kind).forEach((b) => b.open && wanted(b) && b.open());
};
const ranges = (places) => {
  const found = [];
  for (const place of places) {
    unfold(place, (b) => b.holds(needle));
    const walk = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      if (node.parentElement.closest("details:not([open]) > :not(summary)")) continue;
      const text = node.data.toLowerCase();
      for (
        let i = text.indexOf(needle);
        i >= 0 && text.length === node.length && found.length < 1000;
        i = text.indexOf(needle, i + needle.length)
      ) {
        const range = new Range();
        range.setStart(node, i);
        range.setEnd(node, i + needle.length);
        found.push(range);
      }
    }
  }
  return found;
};
const mark = (places) => {
  let found = ranges(places);
  if (!found.length) {
    for (const d of places.flatMap((a) => [...a.querySelectorAll("details:not([open], .events, .inline)")])) {
      d.fill?.();
      unfold(d, (b) => b.holds(needle));
      d.open = d.textContent.toLowerCase().includes(needle);
    }
    found = ranges(places);
  }
  if (globalThis.CSS?.highlights) CSS.highlights.set("found", new Highlight(...found));
  const box = found[0]?.getBoundingClientRect();
  if (box && (box.bottom > innerHeight || box.top < 60)) scrollBy(0, box.top - innerHeight / 3);
};
let waiting = 0;
const look = () => {
  needle = one("#query").value.toLowerCase();
  hits = needle ? rows.flatMap((_, i) => (steps(i).some((s) => s.search.includes(needle)) ? [i] : [])) : [];
  above = needle !== "" && wholes.some((text) => text.includes(needle));
  if (!needle) {
    globalThis.CSS?.highlights?.delete("found");
    say("");
  } else say(many(hits.length, "step") + (above ? ", and above them" : ""));
};
one("#query").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(look, 150);
});
one("#find").addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(waiting);
  look();
  if (above && (at < 0 || !hits.length)) {
    at = -1;
    jump("hit", -1);
  } else if (hits.length) {
    at -= at >= 0 ? 1 : 0;
    if (hits.some((i) => i > at)) jump("hit");
    else {
      at = -1;
      jump("hit");
    }
  }
});

const keys = {
  j: () => jump("step"),
  k: () => jump("step", -1),
  n: () => jump("hit"),
  p: () => jump("hit", -1),
  e: () => jump("error"),
  E: () => jump("error", -1),
  m: () => jump("mistake"),
  M: () => jump("mistake", -1),
  x: () => jump("masked"),
  X: () => jump("masked", -1),
  g: () => go(0),
  G: () => go(rows.length - 1),
  "/": () => one("#query").focus(),
  "?": () => one("#keys").showModal(),
  t: () => one("#theme").click(),
  c: () => copy(location.href),
  o: () =>
    current().forEach((a) => {
      a.querySelectorAll("details:not(.events, .inline)").forEach((d) => {
        d.fill?.();
        d.open = true;
      });
      unfold(a, () => true);
    }),
  r: () =>
    current().forEach((a) => {
      const d = a.querySelector(".events");
      d.open = !d.open;
    }),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || one("#keys").open) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (!Object.hasOwn(keys, event.key)) return;
  event.preventDefault();
  keys[event.key]();
});
document.querySelectorAll("[data-go]").forEach((b) =>
  b.addEventListener("click", () => {
    const [what, back] = b.dataset.go.split("-");
    jump(what, back ? -1 : 1);
  }),
);
one("#help").addEventListener("click", () => one("#keys").showModal());
const linked = () => {
  const found = /^#(?:b-)?step-(\d+)$/.exec(location.hash);
  if (found) go(rows.indexOf(Number(found[1])), false);
};
addEventListener("hashchange", linked);

const named = (values, kind, name) =>
  [...new Set(values)].sort().map((v) => el("option", { value: `${kind}:${v}` }, plain(name(v))));
const masks = data.runs.flatMap((r) => r.events.filter((e) => e.kind === "mask").map((e) => e.mask));
by.append(
  ...named(
    data.runs.flatMap((r) => r.datasets.map((d) => d.name)),
    "dataset",
    (v) => v.replace("datasets/", "dataset "),
  ),
  ...named(
    masks.map((m) => m.mask_rule),
    "rule",
    (v) => "rule " + v,
  ),
  el("option", { value: "" }, "not shown"),
);
const deciding = `rule:${masks.find((m) => m.weight === 0)?.mask_rule}`;
by.selectedIndex = Math.max(
  0,
  data.runs.some((r) => r.datasets.length) ? 0 : [...by.options].findIndex((o) => o.value === deciding),
);
by.addEventListener("change", () => {
  lay();
  if (at >= 0) go(at, false);
});
data.runs.forEach((run) => {
  run.mixed = run.events.some((e) => e.kind === "turn" && (e.turn.beta !== undefined || e.turn.chosen === "teacher"));
});
document.body.classList.toggle("two", data.runs.length > 1);
one("#whole").append(...data.runs.map((run, n) => overview(run, n ? "b-" : "")));
if (data.runs.length > 1 && rows.length) {
  const did = (step) =>
    step?.action?.action.command ?? step?.action?.action.text ?? step?.of("attempt")[0]?.attempt.code;
  const same = (i) => {
    const [a, b] = data.runs.map((r) => did(r.steps.get(rows[i])));
    return a !== undefined && a === b;
  };
  const apart = rows.findIndex((_, i) => !same(i));
  one("#whole").after(
    el(
      "p",
      { class: "apart" },
      apart < 0
        ? "Both did the same."
        : ["They part at ", el("a", { href: `#step-${rows[apart]}` }, `step ${rows[apart]}`), "."],
    ),
  );
}
lay();
linked();
document.documentElement.dataset.ready = "yes";
