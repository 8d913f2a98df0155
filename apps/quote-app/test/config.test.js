import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConfigError, load } from '../src/config.js';

const GOOD = { PGHOST: 'db', PGDATABASE: 'quotes', PGUSER: 'quotes' };

test('the defaults are enough beside a database', () => {
  const config = load(GOOD);
  assert.equal(config.port, 3000);
  assert.equal(config.database.port, 5432);
});

test('a URL names everything, single variables win over it', () => {
  const { database } = load({ DATABASE_URL: 'postgresql://me:a%2Fb@db:6432/quotes', PGHOST: 'other' }); // pragma: allowlist secret
  assert.deepEqual([database.host, database.port, database.user, database.password, database.database], ['other', 6432, 'me', 'a/b', 'quotes']);
});

for (const [name, env, message] of [
  ['no host', { ...GOOD, PGHOST: '' }, /PGHOST .* is missing/],
  ['a port that is none', { ...GOOD, PORT: '3000x' }, /PORT must be a whole number from 0 to 65535, not "3000x"/],
  ['standbys that are no host', { ...GOOD, DATABASE_STANDBY_HOST: 'a b' }, /DATABASE_STANDBY_HOST must be HOST or HOST:PORT, not "a b"/],
  ['an unknown TLS mode', { ...GOOD, PGSSLMODE: 'prefer' }, /PGSSLMODE must be one of/],
  ['verification without an authority', { ...GOOD, PGSSLMODE: 'verify-full' }, /needs PGSSLROOTCERT/],
  ['a file that is not there', { ...GOOD, PGPASSWORD_FILE: '/no/such' }, /PGPASSWORD_FILE: the file \/no\/such cannot be read/],
]) {
  test(`refused: ${name}`, () => assert.throws(() => load(env), (error) => error instanceof ConfigError && message.test(error.message)));
}

test('a wrong URL is refused without repeating its password', () => {
  assert.throws(() => load({ DATABASE_URL: 'mysql://me:hidden@db/quotes' }), (error) => /DATABASE_URL/.test(error.message) && !/hidden/.test(error.message));
});
