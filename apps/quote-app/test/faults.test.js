import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startPostgres } from './postgres.js';
import { startApp, until } from './process.js';

let postgres;
before(async () => {
  postgres = await startPostgres();
});
after(() => postgres?.end());

async function withApp(env, work) {
  const app = await startApp({ ...postgres.env, ...env });
  try {
    await app.ready();
    await work(app);
  } finally {
    await app.stop();
  }
}

test('replicas that start together migrate once', async () => {
  const apps = await Promise.all([1, 2, 3, 4].map(() => startApp(postgres.env)));
  try {
    await Promise.all(apps.map((app) => app.ready()));
    assert.equal(apps.filter((app) => app.output.includes('migration applied')).length, 1);
    assert.equal(postgres.sql('SELECT count(*) FROM schema_migrations'), '2');
    assert.equal(postgres.sql('SELECT count(*) FROM quotes'), '5');
  } finally {
    await Promise.all(apps.map((app) => app.stop()));
  }
});

test('wrong settings end the process with a sentence', async () => {
  await assert.rejects(startApp({ ...postgres.env, PORT: 'x' }), /ended with 78: wrong settings:\n {2}- PORT must be/);
});

test('reads survive a restart of the server; acknowledged writes are all there', { timeout: 60000 }, () =>
  withApp({ DATABASE_RETRY_MS: '10000' }, async (app) => {
    const acknowledged = [];
    const reads = [];
    const writes = [];
    let running = true;
    const readers = [1, 2, 3, 4].map(async () => {
      while (running) reads.push((await app.get('/api/quotes/random')).status);
    });
    const writer = (async () => {
      for (let i = 0; running; i++) {
        const response = await app.post({ text: `write ${i}`, author: 'failover' });
        writes.push(response.status);
        if (response.status === 201) acknowledged.push((await response.json()).id);
        else assert.equal(response.headers.get('retry-after'), '5');
      }
    })();
    await sleep(500);
    const before = acknowledged.length;
    postgres.halt();
    await sleep(500);
    postgres.start();
    await until(() => acknowledged.length > before + 20, 20000);
    running = false;
    await Promise.all([...readers, writer]);
    assert.deepEqual([...new Set(reads)], [200]);
    assert.ok(before > 0);
    assert.deepEqual([...new Set(writes)].filter((status) => ![201, 503].includes(status)), []);
    const kept = new Set(postgres.sql('SELECT id FROM quotes').split('\n'));
    assert.deepEqual(acknowledged.filter((id) => !kept.has(id)), []);
  }));

test('a primary that became read-only is left; the write is done once it is back', { timeout: 30000 }, () =>
  withApp({}, async (app) => {
    assert.equal((await app.post({ text: 'before', author: 'demoted' })).status, 201);
    postgres.sql('ALTER DATABASE quotes SET default_transaction_read_only = on');
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'quote-app'");
    const write = app.post({ text: 'during', author: 'demoted' });
    await sleep(700);
    postgres.sql('BEGIN READ WRITE; ALTER DATABASE quotes RESET default_transaction_read_only; COMMIT');
    assert.equal((await write).status, 201);
    assert.equal(postgres.sql("SELECT count(*) FROM quotes WHERE text = 'during'"), '1');
  }));

test('a write that was cut off while it waited for a standby is answered, and there once', { timeout: 30000 }, () =>
  withApp({}, async (app) => {
    postgres.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
    postgres.sql('SELECT pg_reload_conf()');
    const write = app.post({ text: 'cut off', author: 'switchover' });
    try {
      await until(() => postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") === '1', 5000);
    } finally {
      postgres.sql('ALTER SYSTEM RESET synchronous_standby_names');
    }
    // It is committed, and nobody was told.
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'");
    postgres.sql('SELECT pg_reload_conf()');
    assert.equal((await write).status, 201);
    assert.equal(postgres.sql("SELECT count(*) FROM quotes WHERE text = 'cut off'"), '1');
  }));

test('without a database: alive, not ready, 503 with Retry-After; ready again by itself', { timeout: 60000 }, () =>
  withApp({ DATABASE_RETRY_MS: '300' }, async (app) => {
    postgres.halt();
    try {
      assert.equal((await app.get('/healthz')).status, 200);
      assert.equal((await app.get('/readyz')).status, 503);
      for (const response of [await app.get('/api/quotes'), await app.get('/'), await app.post({ text: 'x', author: 'y' })]) {
        assert.equal(response.status, 503);
        assert.equal(response.headers.get('retry-after'), '5');
      }
      const metrics = await (await app.get('/metrics')).text();
      assert.match(metrics, /^quote_app_healthy 0$/m);
      assert.match(metrics, /quote_app_errors_total\{kind="database"\} 3/);
    } finally {
      postgres.start();
    }
    await app.ready();
  }));

test('while the primary is away a standby answers reads and a write waits', { timeout: 60000 }, async () => {
  const standby = await startPostgres({ of: postgres });
  try {
    await withApp({ DATABASE_STANDBY_HOST: `127.0.0.1:${standby.port}` }, async (app) => {
      postgres.halt();
      let write;
      try {
        write = app.post({ text: 'waited', author: 'failover' });
        for (let i = 0; i < 20; i++) {
          const asked = Date.now();
          assert.equal((await app.get('/api/quotes/random')).status, 200);
          assert.ok(Date.now() - asked < 1000);
          await sleep(100);
        }
        assert.equal((await app.get('/readyz')).status, 200);
      } finally {
        postgres.start();
      }
      assert.equal((await write).status, 201);
      // It is asked again once it is back: what a standby has not got yet is found.
      await sleep(1200);
      const { headers } = await app.post({ text: 'newest', author: 'failover' });
      assert.equal((await app.get(headers.get('location'))).status, 200);
    });
  } finally {
    standby.end();
  }
});

test('a rotated password is used without a restart', { timeout: 30000 }, async () => {
  const file = join(postgres.folder, 'password');
  postgres.sql("CREATE ROLE rotated LOGIN SUPERUSER PASSWORD 'first'");
  const hba = join(postgres.folder, 'data', 'pg_hba.conf');
  writeFileSync(hba, 'host all rotated 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n');
  postgres.sql('SELECT pg_reload_conf()');
  writeFileSync(file, 'first\n');
  await withApp({ PGUSER: 'rotated', PGPASSWORD: '', PGPASSWORD_FILE: file }, async (app) => {
    postgres.sql("ALTER ROLE rotated PASSWORD 'second'");
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'");
    const read = app.get('/api/quotes/random');
    await sleep(300);
    writeFileSync(file, 'second\n');
    assert.equal((await read).status, 200);
    // No connection that was made with the old one is used any longer, though the server would let it.
    writeFileSync(file, 'third\n');
    postgres.sql("ALTER ROLE rotated PASSWORD 'third'");
    const old = postgres.sql("SELECT string_agg(pid::text, ',') FROM pg_stat_activity WHERE usename = 'rotated'");
    assert.equal((await app.get('/api/quotes/random')).status, 200);
    assert.equal((await app.get('/api/quotes/random')).status, 200);
    await until(() => postgres.sql(`SELECT count(*) FROM pg_stat_activity WHERE pid IN (${old})`) === '0', 2000);
    assert.ok(!/first|second|third/.test(app.output));
  });
});

test('told to stop, it is not ready any more and answers everything that comes until it ends', { timeout: 30000 }, async () => {
  const app = await startApp({ ...postgres.env, DRAIN_DELAY_MS: '1000' });
  await app.ready();
  const agent = new http.Agent({ keepAlive: true, maxSockets: 4 });
  const ask = (path) =>
    new Promise((resolve) => {
      http
        .get(app.url + path, { agent }, (response) => response.resume().on('end', () => resolve(response.statusCode)))
        .on('error', (error) => resolve(error.code));
    });
  // One request that is still being answered when the drain delay ends.
  postgres.sql('CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NEW; END $$');
  postgres.sql("CREATE TRIGGER slow BEFORE INSERT ON quotes FOR EACH ROW WHEN (NEW.author = 'slow') EXECUTE FUNCTION slow()");
  await ask('/api/quotes');
  app.child.kill('SIGTERM');
  await until(async () => (await ask('/readyz')) === 503, 900);
  const slow = app.post({ text: 'slow', author: 'slow' });
  const statuses = [];
  const end = Date.now() + 600;
  while (Date.now() < end) statuses.push(await ask('/api/quotes/random'));
  assert.ok(statuses.length > 10);
  assert.deepEqual([...new Set(statuses)], [200]);
  assert.equal((await slow).status, 201);
  assert.equal(await app.exited, 0);
  agent.destroy();
});
