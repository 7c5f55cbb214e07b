// The list at the left and the panel at the right: open, closed, and over the page on a phone.

import { byId } from "./dom.js";

const NARROW = matchMedia("(max-width: 60rem)");

export class Panels {
  #tabs = [...document.querySelectorAll("#panel [role=tab]")];

  constructor() {
    for (const tab of this.#tabs) tab.addEventListener("click", () => this.show(tab.id));
    byId("panel-tabs").addEventListener("keydown", (event) => {
      if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
      const other = this.#tabs.find((tab) => tab !== event.target);
      this.show(other.id);
      other.focus();
    });
    byId("open-settings").addEventListener("click", () => this.toggle("settings-tab"));
    byId("open-inspector").addEventListener("click", () => this.toggle("inspector-tab"));
    byId("close-panel").addEventListener("click", () => this.close());
    byId("toggle-sidebar").addEventListener("click", () => this.#setSidebar(!this.#sidebarOpen));
    byId("veil").addEventListener("click", () => this.close());
    NARROW.addEventListener("change", () => this.close());
    this.close();
  }

  get #sidebarOpen() {
    return byId("toggle-sidebar").getAttribute("aria-expanded") === "true";
  }

  get open() {
    return !byId("panel").hidden;
  }

  show(tabId) {
    byId("panel").hidden = false;
    for (const tab of this.#tabs) {
      const chosen = tab.id === tabId;
      tab.setAttribute("aria-selected", String(chosen));
      tab.tabIndex = chosen ? 0 : -1;
      byId(tab.getAttribute("aria-controls")).hidden = !chosen;
    }
    this.#veil();
  }

  toggle(tabId) {
    if (this.open && byId(tabId).getAttribute("aria-selected") === "true") this.close();
    else this.show(tabId);
  }

  /** The panel, and on a narrow page the list too. */
  close() {
    byId("panel").hidden = true;
    this.#setSidebar(!NARROW.matches);
  }

  closeSidebarIfOver() {
    if (NARROW.matches) this.#setSidebar(false);
  }

  #setSidebar(open) {
    byId("sidebar").hidden = !open;
    byId("toggle-sidebar").setAttribute("aria-expanded", String(open));
    this.#veil();
  }

  #veil() {
    byId("veil").hidden = !(NARROW.matches && (this.open || this.#sidebarOpen));
  }
}
