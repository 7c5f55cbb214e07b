// Files to pictures that a request can carry. The kind is told by the content, a picture that the
// browser knows and the server does not is redrawn as PNG, and what cannot be read is refused here,
// before it is sent.

const SIGNATURES = [
  ["image/jpeg", 0, [0xff, 0xd8, 0xff]],
  ["image/png", 0, [0x89, 0x50, 0x4e, 0x47]],
  ["image/gif", 0, [0x47, 0x49, 0x46, 0x38]],
  ["image/webp", 8, [0x57, 0x45, 0x42, 0x50]],
];

/** A file that cannot be used, with the reason as a sentence. */
export class Unusable extends Error {}

/**
 * @param {File} file
 * @param {number} bytesMax the server's limit of a file
 * @returns {Promise<{name: string, url: string, width: number, height: number, sizeBytes: number}>}
 */
export async function readPicture(file, bytesMax) {
  const type = kindOf(new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  const bitmap = await decode(file);
  const known = type ? new Blob([file], { type }) : await redraw(bitmap, "image/png");
  if (known.size > bytesMax) {
    throw new Unusable(`“${file.name}” has ${megabytes(known.size)}; this server takes up to ${megabytes(bytesMax)}.`);
  }
  const { width, height } = bitmap;
  bitmap.close();
  return { name: file.name, url: await dataUrl(known), width, height, sizeBytes: known.size };
}

/** What a canvas shows, as a picture. */
export async function pictureOf(canvas, name, type = "image/png") {
  const blob = await redraw(canvas, type);
  const { width, height } = canvas;
  return { name, url: await dataUrl(blob), width, height, sizeBytes: blob.size };
}

function kindOf(bytes) {
  const begins = ([, offset, signature]) => signature.every((byte, at) => bytes[offset + at] === byte);
  return SIGNATURES.find(begins)?.[0];
}

async function decode(file) {
  if (!file.size) throw new Unusable(`“${file.name}” is empty.`);
  try {
    return await createImageBitmap(file);
  } catch {
    throw new Unusable(`“${file.name}” cannot be read as a picture. It is damaged, or something else.`);
  }
}

function redraw(source, type) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: source.width, height: source.height });
  canvas.getContext("2d").drawImage(source, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, type, 0.9));
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toLocaleString("en", { maximumFractionDigits: 1 })} MB`;
}
