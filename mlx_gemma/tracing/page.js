// The page of a trace: draws what page.py computed, and answers pointer and keyboard.
const data = JSON.parse(document.getElementById("data").textContent);
let pinned = null, current = null, chosenBranch = null;  // pinned stays shown while the pointer wanders

const nats = (value) => value.toFixed(3);
const joint = (it) => `joint probability ${percent(it.probability)} (log ${nats(it.logprob)})`;

// A line break gets a mark to point at, outside of the text that is copied.
function write(node, text) {
  text.split("\n").forEach((line, i) => {
    if (i) node.append(el("span", { class: "break" }), "\n");
    node.append(line);
  });
  if (!text) node.classList.add("blank");
  if (/[\u202a-\u202e\u2066-\u2069]/.test(text)) node.classList.add("isolate");  // it would turn its neighbours round
  return node;
}

function tokenNode(positions, piece) {
  const held = positions.slice(piece.first, piece.first + piece.count);
  const text = held.map((p) => p.shown).join("");
  const label = `${visible(text)}, ${percent(piece.probability)}`;
  const attributes = { class: `token heat-${piece.heat}`, role: "button", tabindex: -1, "aria-label": label };
  const node = write(el("span", attributes), text);
  node.classList.toggle("fork", held.some((p) => p.candidates.some((c) => c.branch !== null)));
  return Object.assign(node, { piece, held, text });
}
const unitChosen = () => document.querySelector("[name=unit]:checked").value;
const single = (positions) => positions.map((p, first) => ({ ...p, first, count: 1, least: 0 }));
const nodes = (where) => [...$(where).querySelectorAll(".token")];

function draw(unit) {
  const units = unit === "token" ? single(data.answer) : data.pieces[unit];
  $("answer").replaceChildren(...units.map((piece) => tokenNode(data.answer, piece)));
  nodes("answer")[0].tabIndex = 0;
  pinned = null;
  filter();
  show(nodes("answer").reduce((a, b) => (b.piece.logprob < a.piece.logprob ? b : a)));
}

function filter() {
  const least = Number($("entropy").value);
  for (const where of ["answer", "prompt"])
    for (const node of nodes(where)) node.classList.toggle("dim", node.piece.entropy < least);
  const all = nodes("answer"), above = all.filter((node) => !node.classList.contains("dim")).length;
  $("above").textContent = `${least.toFixed(2)} nats: ${above} of ${count(all.length, unitChosen())}`;
}

function show(node) {
  current?.classList.remove("on");
  current = node;
  node.classList.add("on");
  detail(node, node.piece.least);
}

function detail(node, part) {
  const piece = node.piece, position = node.held[part], content = [];
  if (piece.count > 1) {
    content.push(el("h2", {}, `${count(piece.count, "token")}: ${joint(piece)}`));
    const parts = node.held.map((p, i) => {
      const button = el("button", { "aria-pressed": i === part }, name(p.text), ` ${percent(p.probability)}`);
      return Object.assign(button, { onclick: () => { pin(node); detail(node, i); } });
    });
    content.push(el("div", { class: "parts" }, ...parts));
  }
  const rows = [["position", position.index], ["id", position.token], ["probability", percent(position.probability)],
    ["log, nats", nats(position.logprob)], ["rank from 0", position.rank], ["entropy, nats", nats(position.entropy)],
    ["margin", percent(position.margin)]];
  if (position.drawn !== null) rows.push(["drawn", percent(position.drawn)]);
  content.push(el("div", { class: "big" }, name(position.text)));
  content.push(el("dl", {}, ...rows.flatMap(([k, v]) => [el("dt", {}, k), el("dd", {}, String(v))])));
  content.push(el("ol", {}, ...position.candidates.map((c) => el("li", {}, candidateNode(node, c)))));
  $("panel").replaceChildren(...content);
}

function candidateNode(node, c) {
  const bar = el("span", { class: "bar" }), open = c.branch !== null;
  bar.style.width = `${100 * c.probability}%`;
  const drawn = c.drawn === null ? "" : ` (drawn ${percent(c.drawn)})`;
  const note = c.chosen ? "◀ came" : open ? "▸ continue" : "";
  const out = el(open ? "button" : "div", { class: "candidate", title: `id ${c.token}, log ${nats(c.logprob)}` }, bar,
    el("span", { class: "name" }, name(c.text)), el("span", { class: "quiet" }, note),
    el("span", { class: "number" }, percent(c.probability) + drawn));
  if (open) {
    out.setAttribute("aria-pressed", c.branch === chosenBranch);
    out.onclick = () => {
      pin(node);
      chosenBranch = c.branch;
      for (const other of $("panel").querySelectorAll("button.candidate")) other.ariaPressed = other === out;
      compare(data.branches[c.branch]);
    };
  }
  return out;
}

function side(heading, before, tokens, note) {
  const pre = el("pre", {}, el("span", { class: "quiet" }, before));
  for (const t of tokens) pre.append(write(el(t.same ? "span" : "mark", { title: percent(t.probability) }), t.shown));
  if (note) pre.append(el("span", { class: "quiet" }, note));
  return el("article", {}, el("h2", {}, ...heading), pre);
}

function compare(branch) {
  const lines = data.answer.slice(0, branch.position).map((p) => p.shown).join("").split("\n");
  const before = (lines.length > 3 ? "…\n" : "") + lines.slice(-3).join("\n");
  const original = branch.original.map((same, i) => ({ ...data.answer[branch.position + i], same }));
  const more = branch.position + original.length < data.answer.length || data.finish === "length";
  const rest = `given it, the rest ${percent(branch.continuation.probability)}`;
  $("compare").replaceChildren(el("div", { class: "sides" },
    side([`The answer: ${count(original.length, "token")}, ${joint(branch.original_joint)}`],
      before, original, more ? " …" : ""),
    side(["With ", name(branch.alternative), `: ${count(branch.tokens.length, "token")}, ${joint(branch)}; ${rest}`],
      before, branch.tokens, branch.finish === "length" ? " …" : "")));
  $("compare").hidden = false;
  $("compare").querySelector("article:last-child").scrollIntoView({ block: "nearest" });
}

function pin(node) {
  pinned?.classList.remove("pinned");
  node?.classList.add("pinned");
  pinned = node;
}

function move(node, key) {
  const all = nodes(node.parentNode.id).filter((n) => n === node || !n.classList.contains("dim"));
  const at = all.indexOf(node), box = node.getBoundingClientRect();
  const far = (n) => Math.abs(n.getBoundingClientRect().left - box.left);
  const line = (step) => {  // the nearest token of the next line up or down; tops of one line differ by a pixel
    const away = (n) => step * (n.getBoundingClientRect().top - box.top);
    const beyond = all.filter((n) => away(n) > 8), next = Math.min(...beyond.map(away));
    return beyond.filter((n) => away(n) < next + 8).sort((a, b) => far(a) - far(b))[0];
  };
  return { ArrowLeft: () => all[at - 1], ArrowRight: () => all[at + 1], Home: () => all[0], End: () => all.at(-1),
    ArrowUp: () => line(-1), ArrowDown: () => line(1) }[key]?.();
}

for (const where of ["answer", "prompt"]) {
  $(where).addEventListener("mouseover", (event) => {
    const node = event.target.closest(".token");
    if (node && !pinned) show(node);
  });
  $(where).addEventListener("focusin", (event) => {
    const node = event.target.closest(".token");
    for (const other of nodes(where)) other.tabIndex = other === node ? 0 : -1;
    if (node !== pinned) pin(null);
    show(node);
  });
  $(where).addEventListener("click", (event) => {
    const node = event.target.closest(".token");
    if (node) pin(node === pinned ? null : node);
  });
  $(where).addEventListener("keydown", (event) => {
    const node = event.target.closest(".token"), next = node && move(node, event.key);
    if (node && (event.key === "Enter" || event.key === " ")) {
      pin(node);
      ($("panel").querySelector("button") ?? $("panel")).focus();
    } else if (!next) return;
    next?.focus();
    event.preventDefault();
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { pin(null); current.focus(); }
});

for (const radio of document.querySelectorAll("[name=unit]")) radio.onchange = () => draw(radio.value);
$("entropy").max = Math.ceil(100 * Math.max(...data.answer.map((p) => p.entropy))) / 100;
$("entropy").oninput = filter;
$("model").textContent = data.model + (data.adapter === null ? "" : ` with adapter ${data.adapter}`);
for (const { role, content } of data.messages)
  $("messages").append(el("p", {}, el("span", { class: "quiet" }, `${role}: `), el("bdi", {}, content)));
const t = data.totals, ended = { stop: "", length: " (cut)", given: "" }[data.finish];
for (const line of [count(t.tokens, "token") + ended, `behind ${count(t.prompt_tokens, "token")} of prompt`, joint(t),
  `mean entropy ${nats(t.entropy)} nats`, `perplexity ${nats(t.perplexity)}`, data.choice])
  $("totals").append(el("li", {}, line));
$("before").hidden = !data.prompt.length;
$("prompt").replaceChildren(...single(data.prompt).map((piece) => tokenNode(data.prompt, piece)));
if (data.prompt.length) nodes("prompt")[0].tabIndex = 0;
draw(unitChosen());  // a browser may have kept it over a reload
