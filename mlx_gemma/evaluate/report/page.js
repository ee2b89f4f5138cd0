// The page of an evaluation: lists the answers, filters them, and draws one when it is opened.
const data = JSON.parse(document.getElementById("data").textContent);
const UNIT = 1e4;  // of a nat: answers.py
const pair = data.sides.length === 2, last = data.sides.length - 1;

const heat = (p) => (p < 0.5 ? "red" : p < 0.8 ? "yellow" : p < 0.95 ? "cyan" : "green");
const hidden = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/u;
const odd = new RegExp(`(?![\\n\\t])${hidden.source}`, "u");

// Text in which nothing is hidden: what has no shape, or turns its neighbours round, is shown as its code.
function write(node, text) {
  let run = "";
  if (!odd.test(text)) { node.append(text); return node; }
  for (const c of text) {
    if (!odd.test(c)) { run += c; continue; }
    node.append(run, el("span", { class: "hidden-character" }, code(c)));
    run = "";
  }
  node.append(run);
  return node;
}
const plain = (text) => write(el("span", {}), text);

// ---- one answer

function tokensOf(answer) {
  let at = 0;
  return answer.tokens.split(";").filter(Boolean).map((packed) => {
    const [length, nats, ...rivals] = packed.split(",").map(Number), first = at;
    at += length;
    const token = { first, text: answer.text.slice(first, at), probability: Math.exp(-nats / UNIT), rivals: [] };
    for (let i = 0; i < rivals.length; i += 2)
      token.rivals.push({ text: data.rivals[rivals[i]], probability: Math.exp(-rivals[i + 1] / UNIT) });
    return token;
  });
}

function tokenNode(token, parts) {
  const rivals = token.rivals.map((r) => `${visible(r.text)} ${percent(r.probability)}`).join(", ");
  const label = `${visible(token.text)}, ${percent(token.probability)}${rivals && `; rivals: ${rivals}`}`;
  const shade = heat(token.probability);
  const node = el("span", { class: `token heat-${shade}`, role: "button", tabindex: -1, "aria-label": label });
  token.text.split("\n").forEach((line, i) => {
    if (i && shade !== "green") node.append(el("span", { class: "mark-break" }));
    if (i) node.append("\n");
    write(node, line);
  });
  node.classList.toggle("blank", !token.text);
  node.classList.toggle("parts", token.first <= parts && parts < token.first + token.text.length);
  return Object.assign(node, { token });
}

const chip = (verdict, bad) => el("span", { class: `chip ${bad ? "bad" : ""}` }, (bad ? "✗ " : "") + verdict);
const good = () => el("span", { class: "chip good" }, "✓ good");
function chips(answer) {
  const found = answer.verdicts.map((verdict) => chip(verdict, data.bad.includes(verdict)));
  return answer.bad ? found : [good(), ...found];
}

function sideNode(answer, it, parts) {
  const tokens = tokensOf(answer), pre = el("pre", { class: "code", role: "group", "aria-label": "the answer's tokens" });
  if (tokens.length) pre.append(...tokens.map((token) => tokenNode(token, parts)));
  else pre.append(answer.text ? plain(answer.text) : el("span", { class: "quiet" }, "(empty)"));
  pre.temperature = it.temperature;
  const all = [...pre.querySelectorAll(".token")];
  if (all.length) all[0].tabIndex = 0;
  const least = all.length ? all.reduce((a, b) => (b.token.probability < a.token.probability ? b : a)) : null;
  const made = [count(tokens.length, "token") + (answer.finish === "length" ? " (cut)" : ""),
    `mean token ${percent(Math.exp(answer.logprob))}`];
  const facts = el("div", { class: "made" }, ...made.map((line) => el("span", {}, line)));
  if (least) {
    const button = el("button", { type: "button" }, "least certain token: ", name(least.token.text),
      ` ${percent(least.token.probability)}`);
    button.onclick = () => least.focus();
    facts.append(button);
  } else if (answer.text) facts.append(el("span", {}, "its tokens do not make up this text, and are not shown"));
  facts.append(el("span", {}, `${answer.seconds} s`));
  const reasons = answer.verdicts.filter((verdict) => answer.reasons[verdict])
    .map((verdict) => el("li", {}, el("b", {}, `${verdict}: `), el("bdi", {}, plain(answer.reasons[verdict]))));
  return el("article", {},
    el("h4", {}, ...(pair ? [el("bdi", {}, plain(data.sides[it.sides.indexOf(answer)]))] : []), ...chips(answer)),
    ...(sameSystem(it) ? [] : [turn("system", answer.system ?? "(none)")]),
    el("ul", { class: "reasons" }, ...reasons), pre, facts);
}

function turn(role, text) {
  return el("div", { class: "turn" }, el("span", { class: "role" }, role), el("pre", {}, plain(text)));
}

const sameSystem = (it) => it.sides.every((answer) => answer.system === it.sides[0].system);
function draw(it) {
  const item = data.items[it.item];
  const asked = el("div", { class: "asked" });
  if (it.sides[0].system && sameSystem(it)) asked.append(turn("system", it.sides[0].system));
  for (const [role, text] of item.messages) asked.append(turn(role, text));
  if (item.must.length || item.reference !== null) {
    const demands = item.must.flatMap(([kind, text]) => [el("dt", {}, kind), el("dd", {}, plain(text))]);
    const reference = item.reference === null ? [] :
      [el("div", { class: "good" }, el("span", { class: "role" }, "a good answer"), el("pre", {}, plain(item.reference)))];
    asked.append(el("details", {}, el("summary", {}, "What it had to do"), el("dl", { class: "must" }, ...demands),
      ...reference));
  }
  const [a, b] = it.sides.map((answer) => answer.text);
  let parts = pair && a !== b ? 0 : Infinity;
  while (parts < Infinity && a[parts] === b[parts]) parts += 1;
  const note = !pair ? "" : a === b ? "Both answers have the same text." : "";
  it.node.append(asked, ...(note ? [el("p", { class: "quiet" }, note)] : []),
    el("div", { class: "sides" }, ...it.sides.map((answer) => sideNode(answer, it, parts))));
}

// ---- the card of a token

let current = null;
function show(node) {
  current?.classList.remove("on");
  current = node;
  $("card").hidden = !node;
  if (!node) return;
  node.classList.add("on");
  const { token } = node, temperature = node.closest(".code").temperature;
  const all = [{ ...token, came: true }, ...token.rivals].sort((x, y) => y.probability - x.probability);
  const line = (c) => {
    const bar = el("span", { class: "bar" });
    bar.style.width = `${100 * c.probability}%`;
    return el("li", { class: "candidate" }, bar, el("span", { class: "name" }, name(c.text)),
      el("span", { class: "quiet" }, c.came ? "◀ came" : ""), el("span", { class: "number" }, percent(c.probability)));
  };
  const drawn = temperature ? [el("p", { class: "quiet" }, `the model's own; drawn at temperature ${temperature}`)] : [];
  $("card").replaceChildren(...drawn, el("ol", {}, ...all.map(line)));
  place(node);
}

function place(node) {  // on a phone the style sheet keeps it at the bottom
  const at = node.getClientRects()[0] ?? node.getBoundingClientRect(), card = $("card");
  const { width, height } = card.getBoundingClientRect(), view = document.documentElement;
  const below = at.bottom + 8 + height < view.clientHeight;
  card.style.left = `${Math.max(8, Math.min(at.left, view.clientWidth - width - 8)) + scrollX}px`;
  card.style.top = `${(below ? at.bottom + 8 : at.top - height - 8) + scrollY}px`;
}

function move(node, key) {
  const all = [...node.parentNode.querySelectorAll(".token")], at = all.indexOf(node), box = node.getBoundingClientRect();
  const far = (n) => Math.abs(n.getBoundingClientRect().left - box.left);
  const line = (step) => {  // the nearest token of the next line up or down; tops of one line differ by a pixel
    const away = (n) => step * (n.getBoundingClientRect().top - box.top);
    const beyond = all.filter((n) => away(n) > 8), next = Math.min(...beyond.map(away));
    return beyond.filter((n) => away(n) < next + 8).sort((x, y) => far(x) - far(y))[0];
  };
  return { ArrowLeft: () => all[at - 1], ArrowRight: () => all[at + 1], Home: () => all[0], End: () => all.at(-1),
    ArrowUp: () => line(-1), ArrowDown: () => line(1) }[key]?.();
}

const tokenAt = (event) => event.target.closest?.(".token");
const focused = () => document.activeElement?.closest(".token") ?? null;
$("list").addEventListener("mouseover", (event) => show(tokenAt(event) ?? focused()));
$("list").addEventListener("mouseleave", () => show(focused()));
$("list").addEventListener("focusin", (event) => {
  const node = tokenAt(event);
  if (node) {
    for (const other of node.parentNode.querySelectorAll(".token[tabindex='0']")) other.tabIndex = -1;
    node.tabIndex = 0;
    node.scrollIntoView({ block: "nearest" });
  }
  show(node ?? null);
});
$("list").addEventListener("focusout", () => show(null));
$("list").addEventListener("keydown", (event) => {
  const node = tokenAt(event), next = node && move(node, event.key);
  if (!next) return;
  next.focus();
  event.preventDefault();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && current) show(null);
});

// ---- the list, and its filters

const order = [...data.answers];
for (const it of data.answers) {
  const bad = it.sides.map((answer) => answer.bad);
  it.change = !pair || bad[0] === bad[1] ? "same" : bad[1] ? "worse" : "better";
  const sign = (b) => (b ? "✗ bad" : "✓ good");
  const state = el("span", { class: "state" }, sign(bad[0]), ...(pair ? [` → ${sign(bad[1])}`] : []));
  if (it.change !== "same") state.classList.add(it.change);
  const own = pair && it.sides[0].verdicts.join() !== it.sides[1].verdicts.join()
    ? [...chips(it.sides[0]), "→", ...chips(it.sides[1])] : chips(it.sides[last]);
  const where = [data.types[it.type], data.columns[it.column]].filter(Boolean).join(", ");
  const begin = data.items[it.item].messages.at(-1)[1].slice(0, 300).replace(/\s+/g, " ");
  it.node = el("details", { class: "answer" }, el("summary", {}, state,
    el("span", { class: "id" }, el("bdi", {}, plain(it.id)), el("small", { class: "quiet" }, " ", plain(where))),
    el("span", { class: "chips" }, ...own), el("span", { class: "begin quiet" }, plain(begin))));
  it.node.addEventListener("toggle", () => { if (it.node.open && it.node.childElementCount === 1) draw(it); });
}
document.body.classList.toggle("pair", pair);
if (pair) $("legend").append(el("span", { class: "parts" }, "here the two answers part"));

const searched = (it) => (it.searched ??= [it.id, data.types[it.type], ...data.items[it.item].messages.map((m) => m[1]),
  ...it.sides.flatMap((answer) => [answer.text, answer.system ?? "", ...Object.values(answer.reasons)])]
  .join("\n").toLowerCase());
const orders = {
  "the suite's": () => 0,
  "least certain first": (x, y) => x.sides[last].decision - y.sides[last].decision,
  "most certain first": (x, y) => y.sides[last].logprob - x.sides[last].logprob,
};
const options = (names) => names.map((text, i) => el("option", { value: i }, visible(text).replaceAll("·", " ")));
const any = () => el("option", { value: "" }, "all");
const verdicts = (side) => ["bad", "good", ...data.verdicts].map((v) => el("option", { value: `${side} ${v}` }, v));
const selects = {
  verdict: [any(), ...(pair ? data.sides.map((label, i) => el("optgroup", { label }, ...verdicts(i))) : verdicts(0))],
  column: data.columns.length > 1 ? [any(), ...options(data.columns)] : null,
  type: data.types.length > 1 ? [any(), ...options(data.types)] : null,
  change: pair ? [any(), ...["better", "worse", "same"].map((v) => el("option", { value: v }, v))] : null,
  order: Object.keys(orders).map((v) => el("option", { value: v }, v)),
};
for (const [id, children] of Object.entries(selects)) {
  if (!children) continue;
  const label = id[0].toUpperCase() + id.slice(1);
  $("controls").append(el("label", {}, el("span", { class: "quiet" }, label), " ", el("select", { id }, ...children)));
}
$("controls").append(el("label", {}, el("span", { class: "quiet" }, "Text"), " ",
  el("input", { id: "text", type: "search", placeholder: "in prompts, answers, reasons" })), el("output", { id: "count" }));

const chosen = (id) => $(id)?.value ?? "";
function holds(it, filter) {
  const space = filter.indexOf(" "), answer = it.sides[filter.slice(0, space)], verdict = filter.slice(space + 1);
  return verdict === "bad" ? answer.bad : verdict === "good" ? !answer.bad : answer.verdicts.includes(verdict);
}
function filter() {
  const text = $("text").value.trim().toLowerCase();
  let left = 0;
  for (const it of data.answers) {
    const fits = (!chosen("verdict") || holds(it, chosen("verdict")))
      && (!chosen("column") || it.column === Number(chosen("column"))) && (!chosen("type") || it.type === Number(chosen("type")))
      && (!chosen("change") || it.change === chosen("change")) && (!text || searched(it).includes(text));
    it.node.hidden = !fits;
    left += fits;
  }
  $("count").textContent = `${left} of ${count(data.answers.length, "answer")}`;
}
function sort() {
  order.splice(0, Infinity, ...data.answers);
  order.sort(orders[chosen("order")]);
  $("list").replaceChildren(...order.map((it) => it.node));
}

// A number leads to its answers: those filters are set, the others let go.
for (const label of document.querySelectorAll(".pick")) {
  const button = el("button", { type: "button", class: "pick" }, label.textContent);
  button.onclick = () => {
    for (const id of ["verdict", "column", "type", "change"]) if ($(id)) $(id).value = label.dataset[id] ?? "";
    $("text").value = "";
    filter();
    $("answers").scrollIntoView();
    document.querySelector("#answers h2").focus({ preventScroll: true });
  };
  label.replaceWith(button);
}
for (const id of ["verdict", "column", "type", "change"]) if ($(id)) $(id).onchange = filter;
$("order").onchange = sort;
$("text").oninput = filter;
sort();
filter();
