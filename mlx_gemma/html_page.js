// What the pages share: elements, numbers, and text in which nothing is hidden.
"use strict";

const $ = (id) => document.getElementById(id);

function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function percent(p) {
  const value = 100 * p;
  return (value >= 0.1 || value === 0 ? value.toFixed(1) : value.toPrecision(2)) + "\u00a0%";
}
const marks = { " ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍" };
const code = (c) => `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
const visible = (text) => text.replace(/[\p{C}\p{Z}]/gu, (c) => marks[c] ?? code(c)) || "∅";
const name = (text) => el("bdi", {}, el("code", {}, visible(text)));
const count = (n, unit) => `${n} ${unit}${n === 1 ? "" : "s"}`;

