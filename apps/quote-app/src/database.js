// PostgreSQL behind a pool that survives a failover.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { secret } from './config.js';

// The server says that it did not carry out the statement: shutting down, starting, read-only (a demoted primary),
// too many connections, credentials that were just rotated, or a standby whose recovery went first.
const REFUSED = new Set(['57P03', '25006', '53300', '28P01', '28000', '40001']);
// So long after the primary was seen away, reads ask a standby first.
const AWAY_MS = 1000;
// The connection broke: whether a statement took effect is unknown.
const BROKEN = new Set(['57P01', '57P02', '57014', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ECONNREFUSED', 'EHOSTUNREACH',
  'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN']);
const BROKEN_MESSAGE = /connection terminated|timeout exceeded|query read timeout|connection timeout|not queryable|connection ended/i;

// Whether it is the connection or the server, and not the statement; then another attempt may succeed.
const away = (error) =>
  REFUSED.has(error.code) || BROKEN.has(error.code) || /^08/.test(error.code ?? '') || BROKEN_MESSAGE.test(error.message);

/** The database could not be asked, or did not confirm; never carries a detail that a client should not see. */
export class Unavailable extends Error {
  constructor(cause) {
    super(`database unavailable: ${cause.message}`, { cause });
    this.name = 'Unavailable';
  }
}

export class Database {
  #primary;
  #standbys; // whichever standby answers; undefined where the settings name none
  #primaryAway = 0; // until when it is taken to be away
  #retryFor;

  constructor(settings, log) {
    this.#retryFor = settings.retryFor;
    this.#primary = createPool(settings, settings, log);
    if (settings.standbys) this.#standbys = createPool(settings, settings.standbys, log);
  }

  /** Ask; asked again until the answer comes or the time is up. */
  read(text, values) {
    return this.#run(text, values, this.#standbys);
  }

  /** Write what may be written twice: where it is unknown whether a statement took effect, it is sent again. */
  write(text, values) {
    return this.#run(text, values);
  }

  /** One attempt, for the readiness probe: where standbys are named, one that answers is enough to serve reads. */
  async ping() {
    try {
      await this.#attempt(this.#primary, async (client) => {
        const { rows } = await client.query('SELECT pg_is_in_recovery() AS standby');
        if (rows[0].standby) throw Object.assign(new Error('connected to a standby'), { code: '25006' });
      });
    } catch (error) {
      if (!this.#standbys) throw error;
      await this.#attempt(this.#standbys, (client) => client.query('SELECT 1'));
    }
  }

  /** Run work on one connection of its own, as one transaction. */
  transaction(work) {
    return this.#attempt(this.#primary, async (client) => {
      await client.query('BEGIN');
      const result = await work(client);
      await client.query('COMMIT');
      return result;
    }, () => true); // A failed transaction ends with its connection.
  }

  get connections() {
    const pools = [this.#primary, ...(this.#standbys ? [this.#standbys] : [])];
    const sum = (count) => pools.reduce((total, pool) => total + pool[count], 0);
    return { total: sum('totalCount'), idle: sum('idleCount'), waiting: sum('waitingCount') };
  }

  async close() {
    await Promise.all([this.#primary.end(), this.#standbys?.end()]);
  }

  /** Do something on a connection of a pool. With an error that is `spoiled` it is closed, not reused. */
  async #attempt(pool, work, spoiled = away) {
    const client = await pool.connect();
    let failure;
    try {
      return await work(client);
    } catch (error) {
      failure = spoiled(error) ? error : undefined;
      throw error;
    } finally {
      client.release(failure ?? client.outdated);
    }
  }

  async #run(text, values, standbys) {
    const deadline = Date.now() + this.#retryFor;
    for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
      const pools = standbys ? [this.#primary, standbys] : [this.#primary];
      if (Date.now() < this.#primaryAway) pools.reverse();
      let last;
      for (const pool of pools) {
        try {
          return await this.#attempt(pool, (client) => client.query(text, values));
        } catch (error) {
          if (!away(error)) throw error;
          if (pool === this.#primary) this.#primaryAway = Date.now() + AWAY_MS;
          last = error;
        }
      }
      if (Date.now() + pause > deadline) throw new Unavailable(last);
      await sleep(pause);
    }
  }
}

function createPool(settings, { host, port }, log) {
  const account = () => ({
    user: secret(settings.user, settings.userFile),
    password: secret(settings.password, settings.passwordFile),
  });
  // Credentials and authority are read for each connection, so that a rotation needs no restart.
  class Client extends pg.Client {
    #account;

    constructor(options) {
      const current = account();
      super({ ...options, ...current, ssl: ssl(settings, host) });
      this.#account = current;
      // A connection that ends while it is in use also says so here, which without a listener ends the process.
      this.on('error', () => {});
    }

    /** Whether the credentials were rotated since; a connection with old ones is not used again. */
    get outdated() {
      try {
        const { user, password } = account();
        return user !== this.#account.user || password !== this.#account.password;
      } catch {
        return false; // Nothing newer can be read.
      }
    }
  }
  const pool = new pg.Pool({
    Client,
    host,
    port,
    database: settings.database,
    application_name: 'quote-app',
    max: settings.poolSize,
    connectionTimeoutMillis: settings.connectTimeout,
    statement_timeout: settings.statementTimeout,
    // The server's own timeout comes first; this one is for a server that no longer answers at all.
    query_timeout: settings.statementTimeout + 1000,
    idleTimeoutMillis: 30000,
    maxLifetimeSeconds: 600,
    keepAlive: true,
    keepAliveInitialDelayMillis: 5000,
  });
  // An idle connection that breaks is dropped by the pool; without this listener it would end the process.
  pool.on('error', (error) => log.warn({ code: error.code }, `idle connection lost: ${error.message}`));
  return pool;
}

function ssl(settings, host) {
  if (settings.sslMode === 'disable') return false;
  if (settings.sslMode === 'require') return { rejectUnauthorized: false };
  return { ca: readFileSync(settings.sslRootCert, 'utf8'), servername: host };
}
