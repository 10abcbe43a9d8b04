"use strict";
(() => {
  const one = (selector, root = document) => root.querySelector(selector);
  const articles = [...document.querySelectorAll("article")];
  const form = one("#form");
  const key = "stepwell-annotate:" + document.body.dataset.export;
  const letters = { g: "good", u: "unnecessary", m: "mistake", r: "recover" };
  let state = { annotator: "", at: 0, labels: {} };
  let at = 0;

  const say = (text) => { one("#message").textContent = text; };

  const gather = () => { // what the same page in another tab has kept since; of two labels the later holds
    try {
      for (const [event, label] of Object.entries(JSON.parse(localStorage.getItem(key) || "{}").labels || {})) {
        const own = state.labels[event];
        if (!own || own.labelled_at < label.labelled_at) state.labels[event] = label;
      }
    } catch { say("saved labels cannot be read"); }
  };

  const save = () => {
    gather();
    try { localStorage.setItem(key, JSON.stringify(state)); say("saved"); }
    catch { say("this browser keeps nothing: download before you close the page"); }
  };

  const progress = () => {
    const done = articles.filter((a) => (state.labels[a.dataset.event] || {}).label).length;
    const place = "step " + (articles.length ? at + 1 : 0) + " of " + articles.length;
    one("#progress").textContent = form ? place + ", " + done + " judged" : place;
  };

  const show = (index) => {
    at = Math.max(Math.min(index, articles.length - 1), 0);
    articles.forEach((article, i) => { article.hidden = i !== at; });
    if (form) gather();
    progress();
    if (!form) return;
    form.reset();
    const known = articles.length && state.labels[articles[at].dataset.event];
    if (known) {
      for (const input of form.elements) {
        if (input.type === "checkbox") input.checked = known.categories.includes(input.value);
        else if (input.type === "radio") input.checked = String(known[input.name]) === input.value;
        else if (input.name === "rationale") input.value = known.rationale;
      }
    }
    state.at = at;
  };

  const read = () => {
    if (!articles.length) return;
    const data = new FormData(form);
    const article = articles[at].dataset;
    state.labels[article.event] = {
      trajectory_id: article.trajectory, step: Number(article.step), event_id: article.event, content_hash: article.hash,
      label: data.get("label"), severity: data.get("severity") === null ? null : Number(data.get("severity")),
      categories: data.getAll("category"), rationale: data.get("rationale"), labelled_at: new Date().toISOString(),
    };
    save();
    progress();
  };

  const choose = (name, value) => {
    const input = one(`input[name="${name}"][value="${value}"]`, form);
    input.checked = true;
    read();
  };

  const download = () => {
    if (!one("#annotator").checkValidity() || !state.annotator) { say("write your name first: letters, digits, _ . -"); return; }
    gather();
    const judged = articles.map((a) => state.labels[a.dataset.event]).filter((l) => l && l.label);
    const more = { annotator: state.annotator, taxonomy_id: document.body.dataset.taxonomy };
    const lines = judged.map((l) => JSON.stringify({ ...l, ...more }) + "\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob(lines, { type: "application/x-ndjson" }));
    link.download = "labels-" + state.annotator + ".jsonl";
    link.click();
    say(lines.length + " labels downloaded");
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && document.activeElement) { document.activeElement.blur(); return; }
    if (/^(TEXTAREA|SELECT)$/.test(event.target.tagName) || event.target.id === "annotator") return;
    const pressed = event.key.toLowerCase();
    if (pressed === "n" || pressed === "arrowright") show(at + 1);
    else if (pressed === "p" || pressed === "arrowleft") show(at - 1);
    else if (!form) return;
    else if (letters[pressed]) choose("label", letters[pressed]);
    else if ("012".includes(pressed)) choose("severity", pressed);
    else if (pressed === "d") download();
    else if (pressed === "e") one("textarea", form).focus();
    else return;
    event.preventDefault();
  });
  one("#next").addEventListener("click", () => show(at + 1));
  one("#previous").addEventListener("click", () => show(at - 1));
  if (form) {
    try { state = { ...state, ...JSON.parse(localStorage.getItem(key) || "{}") }; } catch { say("saved labels cannot be read"); }
    one("#annotator").value = state.annotator;
    one("#annotator").addEventListener("input", (event) => { state.annotator = event.target.value.trim(); save(); });
    one("#download").addEventListener("click", download);
    form.addEventListener("input", read);
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  show(state.at);
})();
