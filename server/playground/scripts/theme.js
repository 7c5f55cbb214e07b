// Light or dark: as the system says, until the user chooses.

import { byId } from "./dom.js";
import { icon } from "./icons.js";

const KEPT_UNDER = "internvl-serve.theme";

export function setUpTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = byId("theme");
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    button.replaceChildren(icon(dark() ? "sun" : "moon"));
    button.setAttribute("aria-label", dark() ? "Light colours" : "Dark colours");
  };
  const kept = localStorage.getItem(KEPT_UNDER);
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    localStorage.setItem(KEPT_UNDER, root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}
