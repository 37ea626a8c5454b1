// Where pictures are read: in this browser (a worker), or, if that cannot be, by the server that gave the page.

/** The browser's engine, or null with the reason in `why`. */
async function browserEngine(site) {
  if (!site.engine) throw new Error(site.missing);
  if (typeof WebAssembly !== 'object') throw new Error('this browser has no WebAssembly');
  const worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
  const waiting = new Map();
  await new Promise((resolve, reject) => {
    worker.onerror = (event) => reject(new Error(event.message || 'its worker does not start: the web server must give out .js files as text/javascript, and the folder vendor'));
    worker.onmessage = ({ data }) => (data.opened ? resolve() : reject(new Error(data.refused)));
    worker.postMessage({ open: site });
  }).catch((error) => {
    worker.terminate();
    throw error;
  });
  let broken = null;
  worker.onmessage = ({ data }) => {
    if (broken) return;
    const { resolve, reject } = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) reject(new Error(data.error));
    else resolve(data.answer);
  };
  worker.onerror = ({ message }) => {
    broken = new Error(`What reads the pictures broke down (${message || 'without a word'}): reload the page.`);
    for (const { reject } of waiting.values()) reject(broken);
  };
  let count = 0;
  const read = (canvas, { live = false } = {}) =>
    new Promise((resolve, reject) => {
      if (broken) throw broken;
      const { data, width, height } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      waiting.set(++count, { resolve, reject });
      worker.postMessage({ id: count, picture: { data, width, height, step: 4 }, live }, [data.buffer]);
    });
  return { where: 'browser', read };
}

/** The server's /predict as an engine. askKey: () -> Promise of a key, called when the server wants one. */
function serverEngine(site, why, askKey) {
  let key = '';
  const post = async (blob) => {
    const headers = { 'content-type': blob.type, ...(key ? { authorization: `Bearer ${key}` } : {}) };
    const answer = await fetch('predict', { method: 'POST', body: blob, headers });
    if (answer.status === 401) {
      key = await askKey();
      return post(blob);
    }
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(said.detail || `the server answered ${answer.status}`);
    return said;
  };
  const read = async (canvas, { live = false } = {}) => {
    const start = performance.now();
    const form = live ? ['image/jpeg', 0.85] : ['image/png'];
    let blob = await new Promise((resolve) => canvas.toBlob(resolve, ...form));
    if (blob.size > site.max_bytes) blob = await new Promise((resolve) => canvas.toBlob(resolve, 'image/jpeg', 0.92));
    const [{ faces }] = await post(blob);
    return { faces, detect: performance.now() - start, classify: 0 };
  };
  return { where: 'server', why, read };
}

/** The engine for this page. Throws an Error that says why there is none. */
export async function openEngine(site, askKey) {
  try {
    return await browserEngine(site);
  } catch (error) {
    if (!site.server) throw error;
    return serverEngine(site, error.message, askKey);
  }
}
