// The page of an audit: filters its rows by check, kind of thing found, and text.
const checks = [...document.querySelectorAll(".check")];
const texts = new Map([...document.querySelectorAll(".example")].map((e) => [e, e.textContent.toLowerCase()]));

function filter() {
  const [check, name] = $("check").value.split("\n"), text = $("text").value.trim().toLowerCase();
  let left = 0;
  for (const card of checks) {
    const own = [...card.querySelectorAll(".example")];
    let here = 0;
    for (const row of own) {
      const fits = (!name || row.dataset.names.split("\n").includes(name)) && texts.get(row).includes(text);
      row.hidden = !fits;
      here += fits;
    }
    card.hidden = (check && card.dataset.check !== check) || ((text || name) && !here);
    if (!card.hidden) left += here;
    if (check || text) card.open = !card.hidden;
  }
  $("count").textContent = check || text ? `${left} of the ${texts.size} rows shown` : "";
  for (const pick of document.querySelectorAll("[data-pick]"))
    pick.setAttribute("aria-pressed", pick.dataset.pick === $("check").value);
}

// A kind of thing found can be clicked: its rows are left; a second click lets go.
for (const label of document.querySelectorAll("[data-pick]")) {
  const button = document.createElement("button");
  button.type = "button";
  for (const { name, value } of label.attributes) button.setAttribute(name, value);
  button.textContent = label.textContent;
  button.onclick = () => {
    const check = button.dataset.pick;
    $("check").value = $("check").value === check ? check.split("\n")[0] : check;
    filter();
  };
  label.replaceWith(button);
}

$("check").onchange = filter;
$("text").oninput = filter;
$("open").onclick = () => {
  const rows = [...document.querySelectorAll(".check:not([hidden]), .check:not([hidden]) .example:not([hidden])")];
  const open = rows.some((row) => !row.open);
  for (const row of rows) row.open = open;
  $("open").textContent = open ? "Close all" : "Open all";
};
$("controls").hidden = texts.size === 0;
filter();
