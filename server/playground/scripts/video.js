// A video file to still pictures: evenly spaced moments, drawn by the browser.

import { Unusable, pictureOf } from "./pictures.js";

const SIDE_MAX_PX = 896;
const STEP_TIMEOUT_MS = 15_000;
const BEYOND_END_S = 1e7;

/** @param {number} count of frames */
export async function framesOf(file, count) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto" });
  const url = URL.createObjectURL(file);
  try {
    await reached(video, "loadeddata", () => (video.src = url));
    const durationS = await duration(video);
    const frames = [];
    for (let index = 0; index < count; index++) {
      const atS = (durationS * (index + 0.5)) / count;
      await reached(video, "seeked", () => (video.currentTime = atS));
      const picture = await pictureOf(draw(video), `${file.name}, ${atS.toFixed(1)} s`, "image/jpeg");
      frames.push({ ...picture, frame: true });
    }
    return frames;
  } catch {
    throw new Unusable(`“${file.name}” cannot be played by this browser.`);
  } finally {
    video.removeAttribute("src");
    URL.revokeObjectURL(url);
  }
}

/** Recordings often do not say how long they are; their end has to be looked for. */
async function duration(video) {
  if (!Number.isFinite(video.duration)) {
    await reached(video, "seeked", () => (video.currentTime = BEYOND_END_S));
  }
  return Number.isFinite(video.duration) ? video.duration : video.currentTime;
}

function draw(video) {
  const { videoWidth, videoHeight } = video;
  const scale = Math.min(1, SIDE_MAX_PX / Math.max(videoWidth, videoHeight));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(videoWidth * scale);
  canvas.height = Math.round(videoHeight * scale);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function reached(video, event, start) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(reject, STEP_TIMEOUT_MS);
    video.addEventListener(event, () => (clearTimeout(timer), resolve()), { once: true });
    video.addEventListener("error", () => (clearTimeout(timer), reject(video.error)), { once: true });
    start();
  });
}
