// Text of trajectories as DOM: only ever as text nodes. Colours, differences, what hides, what is long.
const hidden = new RegExp(
  "[" + data.hidden.map(([a, b]) => `\\u{${a.toString(16)}}-\\u{${b.toString(16)}}`).join("") + "]",
  "gu",
);
const number = (n) => n.toLocaleString("en-US");
const many = (n, what) => `${number(n)} ${what}${n === 1 ? "" : "s"}`;
const short = (id) => (id || "").slice(0, 8);

const el = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "onclick") made.addEventListener("click", value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return made;
};

const plain = (text) =>
  String(text).replace(hidden, (c) => "⟨U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0") + "⟩");

const put = (parent, text) => {
  // text with marks in place of the characters that hide or turn it
  let from = 0;
  for (const found of text.matchAll(hidden)) {
    if (found.index > from) parent.append(text.slice(from, found.index));
    parent.append(el("span", { class: "esc" }, plain(found[0]).slice(1, -1)));
    from = found.index + found[0].length;
  }
  if (from < text.length) parent.append(from ? text.slice(from) : text);
};

// ANSI: sixteen colours of the theme, so that whatever a program asks for can be read; others become the nearest of them.
const PALETTE = [
  [0, 0, 0],
  [190, 0, 0],
  [0, 150, 0],
  [170, 120, 0],
  [0, 60, 200],
  [160, 0, 160],
  [0, 140, 150],
  [128, 128, 128],
];
const nearest = ([r, g, b]) => {
  const distance = ([x, y, z]) => (x - r) ** 2 + (y - g) ** 2 + (z - b) ** 2;
  return PALETTE.reduce((best, c, i) => (distance(c) < distance(PALETTE[best]) ? i : best), 0);
};
const indexed = (n) => {
  if (n < 16) return n % 8;
  if (n >= 232) return n < 240 ? 0 : 7;
  const level = (k) => (k ? 55 + 40 * k : 0);
  return nearest([level(Math.floor((n - 16) / 36)), level(Math.floor((n - 16) / 6) % 6), level((n - 16) % 6)]);
};
const graphic = (style, codes) => {
  const parts = codes.split(/[;:]/).map(Number);
  for (let i = 0; i < parts.length; i++) {
    const code = parts[i];
    if (code === 0) Object.keys(style).forEach((k) => delete style[k]);
    else if (code === 38 || code === 48) {
      const where = code === 38 ? "ink" : "ground";
      if (parts[i + 1] === 5) {
        style[where] = indexed(parts[i + 2] || 0);
        i += 2;
      } else if (parts[i + 1] === 2) {
        style[where] = nearest(parts.slice(i + 2, i + 5));
        i += 4;
      }
    } else if (code === 39) delete style.ink;
    else if (code === 49) delete style.ground;
    else if ((code >= 30 && code < 38) || (code >= 90 && code < 98)) style.ink = code % 10;
    else if ((code >= 40 && code < 48) || (code >= 100 && code < 108)) style.ground = code % 10;
    else if (code === 22) delete style.bold;
    else if (code in { 1: 1, 3: 1, 4: 1, 9: 1 }) style[{ 1: "bold", 3: "slant", 4: "under", 9: "strike" }[code]] = true;
    else if (code in { 23: 1, 24: 1, 29: 1 }) delete style[{ 23: "slant", 24: "under", 29: "strike" }[code]];
  }
};
const coloured = (parent, text, style) => {
  for (const [i, part] of text.split(/(\x1b\[[0-9;:]*m)/).entries()) {
    if (i % 2) {
      graphic(style, part.slice(2, -1));
      continue;
    }
    if (!part) continue;
    const classes = Object.entries(style).map(([k, v]) =>
      v === true ? k : k === "ink" && "ground" in style ? "" : `${k}${v}`,
    );
    const into = classes.length ? el("span", { class: classes.join(" ").trim() }) : parent;
    put(into, part);
    if (into !== parent) parent.append(into);
  }
};

const LINE = 2000; // characters of one line shown at first, and added each time
const isDiff = (text) => /^@@ -\d+(,\d+)? \+\d+(,\d+)? @@/m.test(text);
const kindOf = (line) =>
  line.startsWith("+++") || line.startsWith("---") || /^(diff |index )/.test(line)
    ? "meta"
    : line[0] === "+"
      ? "added"
      : line[0] === "-"
        ? "gone"
        : line.startsWith("@@")
          ? "hunk"
          : "";

const writeLine = (parent, line, style) => {
  if (line.length <= LINE * 1.2) {
    coloured(parent, line, style);
    return;
  }
  coloured(parent, line.slice(0, LINE), style);
  let at = LINE;
  const more = el("button", {
    type: "button",
    class: "more",
    onclick: () => {
      const piece = line.slice(at, at + 20 * LINE);
      const span = el("span");
      put(span, piece);
      more.before(span);
      at += piece.length;
      if (at >= line.length) more.remove();
      else name();
    },
  });
  const name = () => {
    more.textContent = `${number(line.length - at)} more characters in this line`;
  };
  more.open = () => {
    while (at < line.length) more.click();
  };
  more.holds = (needle) => line.slice(Math.max(0, at - needle.length)).toLowerCase().includes(needle);
  name();
  parent.append(more);
};
const write = (parent, text, style, diff) => {
  const special = diff || text.includes("\x1b") || text.length > LINE;
  if (!special) {
    put(parent, text);
    return;
  }
  text.split("\n").forEach((line, i, all) => {
    const kind = diff ? kindOf(line) : "";
    const into = kind ? el("span", { class: kind }) : parent;
    writeLine(into, line, style);
    if (into !== parent) parent.append(into);
    if (i < all.length - 1) parent.append("\n");
  });
};

const endOf = (text, lines, characters, from = 0) => {
  // where so many lines or characters end
  const limit = Math.min(text.length, from + characters);
  let at = from - 1;
  for (let i = 0; i < lines; i++) {
    const next = text.indexOf("\n", at + 1);
    if (next < 0 && limit === text.length) return limit;
    if (next < 0 || next > limit) return at > from ? at : limit;
    at = next;
  }
  return at;
};
const HEAD = 14,
  TAIL = 5,
  PIECE = 200000;

// A text as a block. What is long is folded: its middle comes into the page when it is asked for.
const block = (text, kind = "", label = null) => {
  const source = text.includes("\r\n") ? text.replaceAll("\r\n", "\n") : text;
  const diff = isDiff(source.slice(0, 1e6)),
    style = {};
  const pre = el("pre", { class: kind, "aria-label": label });
  const box = el("div", { class: "block" }, pre);
  const end = endOf(source, HEAD + TAIL + 6, 4000);
  if (end >= source.length || source.length - end < 80) {
    write(pre, source, style, diff);
    return box;
  }
  let at = source.indexOf("\n") < 0 ? source.length : endOf(source, HEAD, 2400);
  write(pre, source.slice(0, at), style, diff);
  if (at >= source.length) return box;
  let last = source.length - 1;
  for (let i = 0; i < TAIL && last > at; i++) last = source.lastIndexOf("\n", last - 1);
  last = Math.max(last, source.length - 1200, at);
  const tail = el("pre", { class: kind });
  let stop = last;
  write(tail, source.slice(last).replace(/^\n/, ""), {}, diff);
  const open = () => {
    tail.remove();
    stop = source.length;
    const to = Math.min(endOf(source, 4000, PIECE, at + 1), source.length);
    write(pre, source.slice(at, to), style, diff);
    at = to;
    if (at >= source.length) {
      more.remove();
      delete box.open;
    } else name();
  };
  const more = el("button", { type: "button", class: "more fold", onclick: open });
  const name = () => {
    let lines = 0;
    for (let i = source.indexOf("\n", at); i >= 0 && i < stop && lines < 1e5; i = source.indexOf("\n", i + 1)) lines++;
    more.textContent = `show ${number(lines)}${lines < 1e5 ? "" : "+"} more lines (${number(stop - at)} characters)`;
  };
  name();
  box.append(more, tail);
  box.className += " folded";
  box.open = () => {
    while (box.open) open();
  };
  box.holds = (needle) => source.toLowerCase().includes(needle);
  return box;
};

// Two texts as one, with what was taken out and put in: the longest common part, by `split`.
const differing = (before, after, split) => {
  const a = before.split(split),
    b = after.split(split);
  if (a.length * b.length > 2e6) return null;
  const width = b.length + 1,
    best = new Uint32Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * width + j] =
        a[i] === b[j]
          ? best[(i + 1) * width + j + 1] + 1
          : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const parts = [];
  const add = (tag, text) => {
    if (parts.length && parts.at(-1)[0] === tag) parts.at(-1)[1] += text;
    else parts.push([tag, text]);
  };
  let i = 0,
    j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      add("span", a[i]);
      i++;
      j++;
    } else if (j >= b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1]))
      add("del", a[i++]);
    else add("ins", b[j++]);
  }
  return parts;
};
const difference = (before, after, label) => {
  const parts = differing(before, after, /(?<=\n)|(?=\s)|(?<=\s)/) || differing(before, after, /(?<=\n)/);
  if (!parts) return block(after, "", label);
  const pre = el("pre", { class: "difference", "aria-label": label });
  for (const [tag, text] of parts) {
    const part = el(tag);
    put(part, text);
    pre.append(part);
  }
  return el("div", { class: "block" }, pre);
};
