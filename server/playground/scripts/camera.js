// A picture from the camera: a live view in a dialog; where the browser gives none, the phone's own
// camera through a file field.

import { byId } from "./dom.js";
import { pictureOf } from "./pictures.js";

/** @param {(picture: object) => void} take @param {(sentence: string) => void} complain */
export function setUpCamera(take, complain) {
  const dialog = byId("camera");
  const view = byId("camera-view");
  let stream = null;

  byId("open-camera").addEventListener("click", async () => {
    if (!navigator.mediaDevices?.getUserMedia) return byId("camera-file").click();
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      return complain("The camera cannot be used. Allow it in the browser, or choose a file.");
    }
    view.srcObject = stream;
    dialog.showModal();
    await view.play();
  });
  byId("shoot").addEventListener("click", async () => {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, { width: view.videoWidth, height: view.videoHeight });
    canvas.getContext("2d").drawImage(view, 0, 0);
    take(await pictureOf(canvas, `camera ${new Date().toLocaleTimeString()}`, "image/jpeg"));
    dialog.close();
  });
  dialog.addEventListener("close", () => {
    for (const track of stream?.getTracks() ?? []) track.stop();
    view.srcObject = null;
  });
}
