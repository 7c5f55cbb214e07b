// Puts the page together: who hears whom.

import { Chat, newConversation } from "./chat.js";
import { Client } from "./client.js";
import { Composer } from "./composer.js";
import { byId, oncePerFrame } from "./dom.js";
import { History } from "./history.js";
import { drawIcons } from "./icons.js";
import { Inspector } from "./inspector.js";
import { contextUse, showMeter } from "./meter.js";
import { Panels } from "./panels.js";
import { showSamples } from "./samples.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import { Status } from "./status.js";
import { setUpTheme } from "./theme.js";
import { Transcript } from "./transcript.js";

drawIcons();
setUpTheme();

const settings = new Settings();
const client = new Client(() => settings.key);
const status = new Status(client);
const chat = new Chat(client, () => settings.values, () => status.modelName());
const composer = new Composer(() => status.pictureBytesMax, () => settings.values.frames);
const transcript = new Transcript(chat);
const history = new History();
const sidebar = new Sidebar(history);
const panels = new Panels();
const inspector = new Inspector();

const measure = () =>
  showMeter(contextUse(chat.turns, { text: composer.text, pictures: composer.tray.pictures }), status.contextTokens);
const inspect = (at) => inspector.show(chat.turns.at(at)?.answer ?? null);

const removed = new Set(); // ids; an answer that still ends must not bring its conversation back

async function keep({ detail: conversation }) {
  try {
    if (conversation.turns.length && !removed.has(conversation.id)) await history.save(conversation);
    await sidebar.refresh(chat.conversation.id);
  } catch (error) {
    byId("archive-note").textContent = `This browser does not keep conversations: ${error.name}.`;
  }
}

function startNew() {
  chat.open(newConversation());
  panels.closeSidebarIfOver();
  composer.focus();
}

composer.addEventListener("check", (event) => {
  if (settings.check()) return;
  event.preventDefault();
  panels.show("settings-tab");
  settings.showObjection();
});
composer.addEventListener("ask", ({ detail }) => chat.ask(detail.text, detail.pictures));
composer.addEventListener("stop", () => chat.stop());
composer.addEventListener("edit-last", () => transcript.editLast());
composer.addEventListener("change", measure);

const showState = () => {
  composer.busy = chat.busy;
  document.title = chat.conversation.title || "Playground";
  inspect(-1);
  measure();
};
for (const event of ["structure", "settled"]) {
  chat.addEventListener(event, showState);
  chat.addEventListener(event, keep);
}
chat.addEventListener("progress", oncePerFrame(() => (inspector.update(), measure())));

transcript.addEventListener("inspect", ({ detail }) => {
  inspect(detail);
  panels.show("inspector-tab");
});
sidebar.addEventListener("new", startNew);
sidebar.addEventListener("open", async ({ detail }) => {
  removed.delete(detail); // it was imported again
  chat.open((await history.load(detail)) ?? newConversation());
  panels.closeSidebarIfOver();
});
sidebar.addEventListener("remove", ({ detail }) => {
  removed.add(detail);
  if (detail === chat.conversation.id) startNew();
});
status.addEventListener("change", measure);
settings.addEventListener("change", () => byId("schema-badge").toggleAttribute("hidden", !settings.values.schemaMode));

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (chat.busy) chat.stop();
    else panels.close();
  }
  if (event.altKey && event.code === "KeyN") startNew();
  if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) {
    event.preventDefault();
    composer.focus();
  }
});

showSamples((picture, question) => {
  composer.tray.take();
  composer.tray.add(picture);
  composer.suggest(question);
});
byId("schema-badge").toggleAttribute("hidden", !settings.values.schemaMode);
sidebar.refresh();
measure();
status.watch();
