"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Without localStorage (some browsers deny it to files) the choice lasts until the page closes.
  const kept = (value) => {
    try {
      if (value === undefined) return localStorage.getItem("report-theme");
      localStorage.setItem("report-theme", value);
    } catch (error) {
      if (!(error instanceof DOMException)) throw error;
    }
    return null;
  };
  const themes = ["auto", "light", "dark"];
  const theme = document.getElementById("theme");
  const apply = (name) => {
    if (name === "auto") delete root.dataset.theme;
    else root.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
  };
  let current = themes.includes(kept()) ? kept() : "auto";
  apply(current);
  theme.addEventListener("click", () => {
    current = themes[(themes.indexOf(current) + 1) % themes.length];
    kept(current);
    apply(current);
  });
})();
