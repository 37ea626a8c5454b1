// Where pictures come from: files, a clip, the camera.

const MOST = 40_000_000; // pixels of a picture that are shown and read; a larger one is made smaller
const HELD = 4096; // pixels: a side that every browser's canvas has room for

/** A canvas with a file's picture, upright, on white; `scale` is its size over the file's. Throws if it is no picture, or there is no room. */
export async function pictureOf(file) {
  const bitmap = await createImageBitmap(file, { imageOrientation: 'from-image', colorSpaceConversion: 'none' }).catch(() => {
    throw new Error(`${file.name || 'the picture'}: this browser cannot read it as a picture (damaged, or of a kind it does not know): give JPEG, PNG or WebP.`);
  });
  const { width, height } = bitmap;
  let scale = Math.min(1, Math.sqrt(MOST / (width * height)));
  let canvas = white(width * scale, height * scale);
  if (!canvas) {
    scale = Math.min(scale, HELD / Math.max(width, height));
    canvas = white(width * scale, height * scale);
  }
  if (!canvas) {
    bitmap.close();
    throw new Error(`${file.name || 'the picture'}: this browser has no room left for it: close other pages, or give a smaller one.`);
  }
  const pen = canvas.getContext('2d');
  pen.imageSmoothingQuality = 'high';
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return { canvas, scale };
}

/** A white canvas; null where it is larger than this browser has room for, which shows only when it is drawn on. */
function white(width, height) {
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.floor(width));
  canvas.height = Math.max(1, Math.floor(height));
  try {
    const pen = canvas.getContext('2d', { willReadFrequently: true });
    pen.fillStyle = '#fff';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    if (pen.getImageData(canvas.width - 1, canvas.height - 1, 1, 1).data[3]) return canvas;
  } catch {
    // some browsers give no pen for one or refuse to look at it, others see nothing
  }
  canvas.width = canvas.height = 0;
  return null;
}

/** A playing, silent video element for a clip. Throws if the browser cannot play it. */
export async function clipOf(file) {
  const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true, src: URL.createObjectURL(file) });
  await new Promise((resolve, reject) => {
    video.onloadeddata = resolve;
    video.onerror = () => reject(new Error(`${file.name}: this browser cannot play it: give MP4 or WebM, or read it with mien watch, which knows more kinds.`));
  });
  if (!video.videoWidth) throw new Error(`${file.name}: holds no pictures, sound at most: give a video.`);
  await video.play();
  return { video, mirrored: false, stop: () => stop(video) };
}

/** The camera as a playing video element. Throws with words for people. */
export async function cameraOf() {
  if (!navigator.mediaDevices) throw new Error('The camera is open only to pages on this machine or over https.');
  const wanted = { width: { ideal: 640 }, height: { ideal: 480 }, facingMode: 'user' };
  const stream = await navigator.mediaDevices.getUserMedia({ video: wanted, audio: false }).catch((error) => {
    const words = { NotAllowedError: 'The camera was not allowed; the browser keeps that choice beside the address.', NotFoundError: 'No camera is there.', NotReadableError: 'The camera is in use by another program.' };
    throw new Error(words[error.name] ?? `The camera does not start (${error.message}).`);
  });
  const video = Object.assign(document.createElement('video'), { muted: true, playsInline: true, srcObject: stream });
  await video.play().catch((error) => {
    stop(video);
    throw error;
  });
  const mirrored = stream.getVideoTracks()[0].getSettings().facingMode !== 'environment';
  return { video, mirrored, stop: () => stop(video) };
}

function stop(video) {
  video.pause();
  for (const track of video.srcObject?.getTracks() ?? []) track.stop();
  if (video.src) URL.revokeObjectURL(video.src);
  video.srcObject = null;
  video.removeAttribute('src');
}

/** Call back at the video's next frame, with its time in the video (seconds). */
export function nextFrame(video, call) {
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback((_, { mediaTime }) => call(mediaTime));
  else setTimeout(() => call(video.currentTime), 33);
}
