// PostgreSQL behind a pool that survives a failover.
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { secret } from './config.js';

// The server says that it did not carry out the statement: shutting down, starting, read-only (a demoted primary),
// too many connections, or credentials that were just rotated.
const REFUSED = new Set(['57P03', '25006', '53300', '28P01', '28000']);
// The connection broke: whether a statement took effect is unknown.
const BROKEN = new Set(['57P01', '57P02', '57014', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ECONNREFUSED', 'EHOSTUNREACH',
  'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN']);
const BROKEN_MESSAGE = /connection terminated|timeout exceeded|query read timeout|connection timeout|not queryable|connection ended/i;

const refused = (error) => REFUSED.has(error.code);
const broken = (error) => BROKEN.has(error.code) || /^08/.test(error.code ?? '') || BROKEN_MESSAGE.test(error.message);

/** The database could not be asked, or did not confirm; never carries a detail that a client should not see. */
export class Unavailable extends Error {
  constructor(cause) {
    super(`database unavailable: ${cause.message}`, { cause });
    this.name = 'Unavailable';
  }
}

export class Database {
  #pool;
  #retryFor;

  constructor(settings, log) {
    this.#retryFor = settings.retryFor;
    const account = () => ({
      user: secret(settings.user, settings.userFile),
      password: secret(settings.password, settings.passwordFile),
    });
    // Credentials and authority are read for each connection, so that a rotation needs no restart.
    class Client extends pg.Client {
      #account;

      constructor(options) {
        const current = account();
        super({ ...options, ...current, ssl: ssl(settings) });
        this.#account = current;
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
    this.#pool = new pg.Pool({
      Client,
      host: settings.host,
      port: settings.port,
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
    this.#pool.on('error', (error) => log.warn({ code: error.code }, `idle connection lost: ${error.message}`));
  }

  /** Ask; asked again until the answer comes or the time is up, because asking twice does no harm. */
  read(text, values) {
    return this.#run(text, values, (error) => refused(error) || broken(error));
  }

  /** Write; again only where the server certainly did nothing. Otherwise the caller learns that it is not confirmed. */
  write(text, values) {
    return this.#run(text, values, refused);
  }

  /** One attempt, for the readiness probe; a standby is not ready to serve. */
  async ping() {
    const client = await this.#pool.connect();
    let failure;
    try {
      const { rows } = await client.query('SELECT pg_is_in_recovery() AS standby');
      if (rows[0].standby) throw Object.assign(new Error('connected to a standby'), { code: '25006' });
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      client.release(failure ?? client.outdated);
    }
  }

  /** Run work on one connection of its own, as one transaction. */
  async transaction(work) {
    const client = await this.#pool.connect();
    let failure;
    try {
      await client.query('BEGIN');
      const result = await work(client);
      await client.query('COMMIT');
      return result;
    } catch (error) {
      failure = error;
      throw error;
    } finally {
      client.release(failure); // A failed transaction ends with its connection.
    }
  }

  get connections() {
    return { total: this.#pool.totalCount, idle: this.#pool.idleCount, waiting: this.#pool.waitingCount };
  }

  close() {
    return this.#pool.end();
  }

  async #run(text, values, again) {
    const deadline = Date.now() + this.#retryFor;
    for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
      let connected = false;
      try {
        const client = await this.#pool.connect();
        connected = true;
        let failure;
        try {
          return await client.query(text, values);
        } catch (error) {
          failure = refused(error) || broken(error) ? error : undefined;
          throw error;
        } finally {
          client.release(failure ?? client.outdated); // With an error the connection is closed, not reused.
        }
      } catch (error) {
        if (!refused(error) && !broken(error)) throw error;
        // Without a connection nothing was sent: another attempt is safe for writes, too.
        if ((connected && !again(error)) || Date.now() + pause > deadline) throw new Unavailable(error);
        await sleep(pause);
      }
    }
  }
}

function ssl(settings) {
  if (settings.sslMode === 'disable') return false;
  if (settings.sslMode === 'require') return { rejectUnauthorized: false };
  return { ca: readFileSync(settings.sslRootCert, 'utf8'), servername: settings.host };
}
