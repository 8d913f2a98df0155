import { setTimeout as sleep } from 'node:timers/promises';
import { createApp } from './app.js';
import { ConfigError, load } from './config.js';
import { Database } from './database.js';
import { migrate } from './migrations.js';

let config;
try {
  config = load();
} catch (error) {
  if (!(error instanceof ConfigError)) throw error;
  console.error(error.message);
  process.exit(78); // EX_CONFIG
}

const state = { ready: false, stopping: false };
// The logger is the server's; what the pool says goes there as soon as it exists.
const late = { warn: (...words) => app.log.warn(...words) };
const database = new Database(config.database, late);
const app = createApp({ database, state, logLevel: config.logLevel });

async function stop(signal) {
  if (state.stopping) return;
  state.stopping = true;
  state.ready = false;
  app.log.info({ signal }, 'stopping: no longer ready, still serving');
  await sleep(config.drainDelay);
  const cut = setTimeout(() => {
    app.log.error('open requests were cut off');
    process.exit(1);
  }, config.closeTimeout);
  await app.close();
  await database.close();
  clearTimeout(cut);
  app.log.info('stopped');
}
for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, stop);

await app.listen({ host: config.host, port: config.port });
for (let pause = 200; !state.stopping; pause = Math.min(pause * 2, 5000)) {
  try {
    await migrate(database, app.log);
    state.ready = !state.stopping;
    break;
  } catch (error) {
    app.log.warn({ code: error.code }, `the schema cannot be brought up to date yet: ${error.message}`);
    await sleep(pause);
  }
}
