"use strict";
(() => {
  const root = document.documentElement;
  const pause = document.getElementById("pause");
  if (pause) {
    pause.addEventListener("click", () => {
      const paused = root.classList.toggle("paused");
      pause.setAttribute("aria-pressed", String(paused));
      pause.textContent = paused ? "Play animations" : "Pause animations";
    });
  }

  const table = document.getElementById("trial-table");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const words = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
  const count = document.getElementById("count");
  const filter = document.getElementById("filter");
  const order = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  const value = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.v;
    if (given !== undefined) return given === "" ? null : Number(given);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text;
  };
  // Unknown values come last in both directions.
  const compare = (a, b, sign) => {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * order.compare(String(a), String(b));
  };

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const now = head.getAttribute("aria-sort") === first ? other : first;
      heads.forEach((each) => each.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", now);
      const sign = now === "ascending" ? 1 : -1;
      const keys = new Map(rows.map((row) => [row, value(row, column)]));
      rows.sort((a, b) => compare(keys.get(a), keys.get(b), sign));
      body.append(...rows);
    });
  });

  const total = count.textContent;
  filter.addEventListener("input", () => {
    const wanted = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      row.hidden = !wanted.every((word) => words.get(row).includes(word));
      shown += !row.hidden;
    }
    count.textContent = wanted.length ? `${shown} of ${total}` : total;
  });
  document.addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLElement && event.target.matches("input, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      filter.focus();
    } else if (event.key === "Escape" && event.target === filter) {
      filter.value = "";
      filter.dispatchEvent(new Event("input"));
    }
  });
})();
