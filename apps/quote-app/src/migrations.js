// The schema, brought up to date once: all replicas may start together, one does the work, the others wait for it.
import { readdir, readFile } from 'node:fs/promises';

const FOLDER = new URL('../migrations/', import.meta.url);
const LOCK = 7305842; // Any number that nothing else in this database uses.

export async function migrate(database, log) {
  const names = (await readdir(FOLDER)).filter((name) => name.endsWith('.sql')).sort();
  await database.transaction(async (client) => {
    // Another replica may be migrating: wait for it longer than for a common statement.
    await client.query("SET LOCAL statement_timeout = '60s'");
    await client.query({ text: `SELECT pg_advisory_xact_lock(${LOCK})`, query_timeout: 65000 });
    await client.query(
      'CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())',
    );
    const { rows } = await client.query('SELECT name FROM schema_migrations');
    const applied = new Set(rows.map((row) => row.name));
    for (const name of names.filter((candidate) => !applied.has(candidate))) {
      await client.query({ text: await readFile(new URL(name, FOLDER), 'utf8'), query_timeout: 65000 });
      await client.query('INSERT INTO schema_migrations (name) VALUES ($1)', [name]);
      log.info({ migration: name }, 'migration applied');
    }
  });
}
