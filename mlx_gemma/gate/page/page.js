// The slider walks over the rows of the table of thresholds.
const rows = [...document.querySelectorAll("#thresholds tbody tr")];
const slide = document.getElementById("slide");
const at = document.getElementById("at");
if (rows.length > 1) {
  at.max = rows.length - 1;
  at.value = Math.max(0, rows.findIndex((row) => row.classList.contains("chosen")));
  const show = () => {
    rows.forEach((row, i) => row.classList.toggle("shown", i === Number(at.value)));
    const [threshold, sent, specialist, gate] = [...rows[at.value].cells].map((cell) => cell.textContent);
    slide.querySelector("output").textContent =
      `${threshold}: to the specialist ${sent}; bad there ${specialist}; bad of all ${gate}`;
  };
  at.addEventListener("input", show);
  slide.hidden = false;
  show();
}
