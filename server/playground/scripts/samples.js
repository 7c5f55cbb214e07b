// Three pictures to begin with, drawn here, and a question for each.

import { byId, element } from "./dom.js";
import { pictureOf } from "./pictures.js";

const SIDE_PX = 448;
const COLOURS = { red: "#d62628", blue: "#2652d4", green: "#2aa03a", orange: "#f68e16", purple: "#9234ac" };

const SHAPES = {
  circle: (pen) => pen.arc(0, 0, 1, 0, 2 * Math.PI),
  square: (pen) => pen.rect(-0.86, -0.86, 1.72, 1.72),
  triangle: (pen) => polygon(pen, [[0, -1], [0.95, 0.85], [-0.95, 0.85]]),
  star: (pen) => polygon(pen, [...Array(10).keys()].map((at) => point(at, at % 2 ? 0.42 : 1))),
};

export const SAMPLES = [
  { name: "star and circle", question: "What colour is the star?", figures: [["star", "blue", 0, 0], ["circle", "red", 2, 2]] },
  {
    name: "five shapes",
    question: "How many shapes are there?",
    figures: [["square", "green", 0, 0], ["circle", "orange", 2, 0], ["triangle", "purple", 1, 1], ["star", "red", 0, 2], ["square", "blue", 2, 2]],
  },
  { name: "two shapes", question: "Is the triangle left or right of the square?", figures: [["triangle", "green", 0, 1], ["square", "purple", 2, 1]] },
];

export function draw({ figures }) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: SIDE_PX, height: SIDE_PX });
  const pen = canvas.getContext("2d");
  pen.fillStyle = "#fffdf6";
  pen.fillRect(0, 0, SIDE_PX, SIDE_PX);
  const cell = SIDE_PX / 3;
  for (const [shape, colour, column, row] of figures) {
    pen.setTransform(cell * 0.4, 0, 0, cell * 0.4, (column + 0.5) * cell, (row + 0.5) * cell);
    pen.fillStyle = COLOURS[colour];
    pen.beginPath();
    SHAPES[shape](pen);
    pen.fill();
  }
  return canvas;
}

/** @param {(picture: object, question: string) => void} take */
export function showSamples(take) {
  for (const sample of SAMPLES) {
    const canvas = draw(sample);
    canvas.setAttribute("aria-hidden", "true");
    const button = element("button", { type: "button" }, canvas, element("span", { text: sample.question }));
    button.addEventListener("click", async () => take(await pictureOf(draw(sample), `${sample.name}.png`), sample.question));
    byId("samples").append(element("li", {}, button));
  }
}

function polygon(pen, points) {
  for (const [x, y] of points) pen.lineTo(x, y);
  pen.closePath();
}

function point(tenth, radius) {
  const angle = (tenth * Math.PI) / 5 - Math.PI / 2;
  return [radius * Math.cos(angle), radius * Math.sin(angle)];
}
