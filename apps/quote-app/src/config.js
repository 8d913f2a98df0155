// Settings come from the environment only, and are judged before anything starts.
import { accessSync, constants, readFileSync } from 'node:fs';

export class ConfigError extends Error {}

const SSL_MODES = ['disable', 'require', 'verify-full'];
const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'];

/** Read a secret anew each time: what a rotation has written counts for the next connection. */
export function secret(value, file) {
  return file ? readFileSync(file, 'utf8').trim() : value;
}

export function load(env = process.env) {
  const problems = [];

  const integer = (name, fallback, min, max) => {
    const given = env[name] ?? String(fallback);
    const value = Number(given);
    if (!Number.isInteger(value) || value < min || value > max) {
      problems.push(`${name} must be a whole number from ${min} to ${max}, not "${given}"`);
    }
    return value;
  };
  const choice = (name, fallback, choices) => {
    const value = env[name] ?? fallback;
    if (!choices.includes(value)) problems.push(`${name} must be one of ${choices.join(', ')}, not "${value}"`);
    return value;
  };
  const file = (name) => {
    if (!env[name]) return undefined;
    try {
      accessSync(env[name], constants.R_OK);
    } catch {
      problems.push(`${name}: the file ${env[name]} cannot be read`);
    }
    return env[name];
  };

  let url = {};
  if (env.DATABASE_URL) {
    try {
      const parsed = new URL(env.DATABASE_URL);
      if (!['postgres:', 'postgresql:'].includes(parsed.protocol)) throw new TypeError('protocol');
      url = {
        host: decodeURIComponent(parsed.hostname),
        port: parsed.port || undefined,
        user: decodeURIComponent(parsed.username),
        password: decodeURIComponent(parsed.password),
        database: decodeURIComponent(parsed.pathname.slice(1)),
      };
    } catch {
      // The value holds a password: it is not repeated.
      problems.push('DATABASE_URL must look like postgresql://user:password@host:5432/database');
    }
  }

  // HOST or HOST:PORT of servers that may be standbys.
  const [standbyHost, standbyPort] = (env.DATABASE_STANDBY_HOST ?? '').split(':');
  const database = {
    host: env.PGHOST || url.host,
    port: integer('PGPORT', url.port ?? 5432, 1, 65535),
    standbys: standbyHost && { host: standbyHost, port: Number(standbyPort || env.PGPORT || url.port || 5432) },
    database: env.PGDATABASE || url.database,
    user: env.PGUSER || url.user,
    userFile: file('PGUSER_FILE'),
    password: env.PGPASSWORD || url.password,
    passwordFile: file('PGPASSWORD_FILE'),
    sslMode: choice('PGSSLMODE', 'disable', SSL_MODES),
    sslRootCert: file('PGSSLROOTCERT'),
    poolSize: integer('DATABASE_POOL_SIZE', 10, 1, 100),
    connectTimeout: integer('DATABASE_CONNECT_TIMEOUT_MS', 2000, 100, 60000),
    statementTimeout: integer('DATABASE_STATEMENT_TIMEOUT_MS', 5000, 100, 60000),
    retryFor: integer('DATABASE_RETRY_MS', 20000, 0, 60000),
  };
  if (!database.host) problems.push('PGHOST (or DATABASE_URL) is missing: the host of PostgreSQL');
  if (env.DATABASE_STANDBY_HOST && !/^[a-z0-9.-]+(:\d{1,5})?$/i.test(env.DATABASE_STANDBY_HOST)) {
    problems.push(`DATABASE_STANDBY_HOST must be HOST or HOST:PORT, not "${env.DATABASE_STANDBY_HOST}"`);
  }
  if (!database.database) problems.push('PGDATABASE (or DATABASE_URL) is missing: the name of the database');
  if (!database.user && !database.userFile) problems.push('PGUSER, PGUSER_FILE or DATABASE_URL must name the user');
  if (database.sslMode === 'verify-full' && !database.sslRootCert) {
    problems.push('PGSSLMODE verify-full needs PGSSLROOTCERT, the file with the certificate authority');
  }

  const config = {
    port: integer('PORT', 3000, 0, 65535),
    host: env.HOST || '0.0.0.0',
    logLevel: choice('LOG_LEVEL', 'info', LOG_LEVELS),
    // As long as it takes until every proxy knows that this pod is going away.
    drainDelay: integer('DRAIN_DELAY_MS', 5000, 0, 60000),
    // After that, open requests are cut off; stays under terminationGracePeriodSeconds.
    closeTimeout: integer('CLOSE_TIMEOUT_MS', 15000, 100, 300000),
    database,
  };
  if (problems.length > 0) throw new ConfigError(`wrong settings:\n  - ${problems.join('\n  - ')}`);
  return config;
}
