// The application as it runs in the cluster: a process of its own, judged from outside.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../src/main.js', import.meta.url));

export async function startApp(env) {
  const child = spawn(process.execPath, [MAIN], {
    env: { PATH: process.env.PATH, PORT: '0', HOST: '127.0.0.1', DRAIN_DELAY_MS: '300', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const app = { child, output: '', exited: once(child, 'exit').then(([code]) => code) };
  const port = await new Promise((resolve, reject) => {
    child.stderr.on('data', (data) => (app.output += data));
    child.stdout.on('data', (data) => {
      app.output += data;
      const found = /listening at http:\/\/127\.0\.0\.1:(\d+)/.exec(app.output);
      if (found) resolve(found[1]);
    });
    child.on('exit', (code) => reject(new Error(`ended with ${code}: ${app.output}`)));
  });
  app.url = `http://127.0.0.1:${port}`;
  app.get = (path, options) => fetch(app.url + path, options);
  app.post = (body, type = 'application/json') =>
    app.get('/api/quotes', { method: 'POST', headers: { 'content-type': type }, body: typeof body === 'string' ? body : JSON.stringify(body) });
  app.ready = () => until(async () => (await app.get('/readyz')).status === 200);
  app.stop = async () => {
    child.kill('SIGTERM');
    return app.exited;
  };
  return app;
}

export async function until(check, milliseconds = 15000) {
  const deadline = Date.now() + milliseconds;
  while (!(await check())) {
    if (Date.now() > deadline) throw new Error(`not within ${milliseconds} ms: ${check}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
