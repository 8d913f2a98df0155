// The HTTP side: page, API, probes, metrics.
import { randomUUID } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import Fastify, { LogController } from 'fastify';
import prometheus from 'prom-client';
import { Unavailable } from './database.js';
import { errorPage, quotePage, STYLE } from './page.js';

const COLUMNS = 'id::text, text, author, created_at';
const RANDOM = `SELECT ${COLUMNS} FROM quotes OFFSET floor(random() * (SELECT count(*) FROM quotes)) LIMIT 1`;
// Sent again after a broken connection, it finds the row that the first attempt may have made.
const ADD = `INSERT INTO quotes (text, author, request) VALUES ($1, $2, $3)
  ON CONFLICT (request) DO UPDATE SET request = EXCLUDED.request RETURNING ${COLUMNS}`;

const quoteSchema = {
  type: 'object',
  properties: {
    id: { type: 'string' },
    text: { type: 'string' },
    author: { type: 'string' },
    created_at: { type: 'string', format: 'date-time' },
  },
};
const idSchema = {
  type: 'object',
  properties: { id: { type: 'string', pattern: '^[1-9][0-9]{0,17}$' } },
};
// Something to read in it, and none of the characters that PostgreSQL cannot store.
const words = (maxLength) => ({ type: 'string', minLength: 1, maxLength, pattern: '^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$' });

/** `state.ready` is false until the schema is there, and again once the process is told to stop. */
export function createApp({ database, state, logLevel = 'info', logStream }) {
  const app = Fastify({
    logger: {
      level: logLevel,
      base: undefined,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
      ...(logStream && { stream: logStream }),
    },
    bodyLimit: 16 * 1024,
    requestTimeout: 30000,
    // Longer than proxies keep idle connections, so that they close first and no request meets a closed one.
    keepAliveTimeout: 75000,
    // While closing, what still arrives on open connections is answered; the answer says `connection: close`.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    logController: new LogController({ disableRequestLogging: true }),
    genReqId: (request) => {
      const given = request.headers['x-request-id'];
      return typeof given === 'string' && /^[\w.-]{1,64}$/.test(given) ? given : randomUUID();
    },
    ajv: { customOptions: { coerceTypes: true, removeAdditional: false, allErrors: false } },
  });

  const registry = new prometheus.Registry();
  prometheus.collectDefaultMetrics({ register: registry });
  const requests = new prometheus.Counter({
    name: 'http_requests_total',
    help: 'Requests answered.',
    labelNames: ['method', 'route', 'status'],
    registers: [registry],
  });
  const duration = new prometheus.Histogram({
    name: 'http_request_duration_seconds',
    help: 'Time from the first byte of a request to the last of its answer.',
    labelNames: ['method', 'route', 'status'],
    buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers: [registry],
  });
  const errors = new prometheus.Counter({
    name: 'quote_app_errors_total',
    help: 'Requests that failed on this side, by kind.',
    labelNames: ['kind'],
    registers: [registry],
  });
  for (const kind of ['database', 'internal']) errors.inc({ kind }, 0);
  new prometheus.Gauge({
    name: 'quote_app_healthy',
    help: '1 while the application is ready to serve.',
    registers: [registry],
    async collect() {
      this.set((await ready()) ? 1 : 0);
    },
  });
  new prometheus.Gauge({
    name: 'quote_app_database_connections',
    help: 'Connections of the pool by state; waiting are requests without one.',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      for (const [name, value] of Object.entries(database.connections)) this.set({ state: name }, value);
    },
  });

  async function ready() {
    if (!state.ready) return false;
    try {
      await database.ping();
      return true;
    } catch (error) {
      app.log.warn({ code: error.code }, `not ready: ${error.message}`);
      return false;
    }
  }

  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    reply.header('x-content-type-options', 'nosniff');
    reply.header('referrer-policy', 'no-referrer');
    reply.header(
      'content-security-policy',
      "default-src 'none'; style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    if (state.stopping) reply.header('connection', 'close');
  });

  app.addHook('onResponse', async (request, reply) => {
    // Never the path itself as a label: anyone could invent new ones without end.
    const labels = { method: request.method, route: request.routeOptions.url ?? 'unknown', status: reply.statusCode };
    requests.inc(labels);
    duration.observe(labels, reply.elapsedTime / 1000);
    const probe = ['/healthz', '/readyz', '/metrics'].includes(labels.route);
    request.log[probe ? 'debug' : 'info'](
      { method: request.method, path: request.url.split('?')[0], status: reply.statusCode, ms: Math.round(reply.elapsedTime) },
      'request',
    );
  });

  const wantsPage = (request) => !/^\/(api(\/|$)|healthz|readyz|metrics)/.test(request.url);
  function fail(request, reply, status, detail) {
    const title = STATUS_CODES[status];
    if (wantsPage(request)) return reply.code(status).type('text/html; charset=utf-8').send(errorPage(title, detail));
    return reply
      .code(status)
      .type('application/problem+json')
      .serializer(JSON.stringify)
      .send({ type: 'about:blank', title, status, detail, requestId: request.id });
  }

  app.setErrorHandler((error, request, reply) => {
    if (error instanceof Unavailable) {
      errors.inc({ kind: 'database' });
      request.log.error({ code: error.cause.code }, error.message);
      reply.header('retry-after', '5');
      const detail = request.method === 'POST' ? 'The quote was not confirmed; look before you send it again' : 'The database does not answer';
      return fail(request, reply, 503, `${detail}.`);
    }
    if (error.statusCode >= 400 && error.statusCode < 500) return fail(request, reply, error.statusCode, error.message);
    errors.inc({ kind: 'internal' });
    request.log.error({ code: error.code, stack: error.stack }, error.message);
    return fail(request, reply, 500, 'Something went wrong here.');
  });
  app.setNotFoundHandler((request, reply) => fail(request, reply, 404, 'There is nothing at this address.'));

  const find = async (id) => (await database.read(`SELECT ${COLUMNS} FROM quotes WHERE id = $1`, [id])).rows[0];
  const draw = async () => (await database.read(RANDOM)).rows[0];
  const page = (reply, quote) => reply.type('text/html; charset=utf-8').header('cache-control', 'no-store').send(quotePage(quote));

  app.get('/', async (request, reply) => page(reply, await draw()));
  app.get('/quotes/:id', { schema: { params: idSchema } }, async (request, reply) => {
    const quote = await find(request.params.id);
    return quote ? page(reply, quote) : fail(request, reply, 404, 'There is no such quote.');
  });
  app.get('/assets/style.css', async (request, reply) =>
    reply.type('text/css; charset=utf-8').header('cache-control', 'public, max-age=3600').send(STYLE));

  app.get(
    '/api/quotes',
    {
      schema: {
        querystring: {
          type: 'object',
          additionalProperties: false,
          properties: {
            limit: { type: 'integer', minimum: 1, maximum: 100, default: 20 },
            before: { type: 'string', pattern: '^[1-9][0-9]{0,17}$' },
          },
        },
        response: {
          200: {
            type: 'object',
            properties: { quotes: { type: 'array', items: quoteSchema }, next: { type: ['string', 'null'] } },
          },
        },
      },
    },
    async (request) => {
      // Newest first; `next` is what `before` must be for the following page, so that new quotes shift nothing.
      const { limit, before } = request.query;
      const { rows } = await database.read(
        `SELECT ${COLUMNS} FROM quotes WHERE $1::bigint IS NULL OR id < $1::bigint ORDER BY quotes.id DESC LIMIT $2`,
        [before ?? null, limit + 1],
      );
      const quotes = rows.slice(0, limit);
      return { quotes, next: rows.length > limit ? quotes.at(-1).id : null };
    },
  );
  app.get('/api/quotes/random', { schema: { response: { 200: quoteSchema } } }, async (request, reply) =>
    (await draw()) ?? fail(request, reply, 404, 'There is no quote yet.'));
  app.get('/api/quotes/:id', { schema: { params: idSchema, response: { 200: quoteSchema } } }, async (request, reply) =>
    (await find(request.params.id)) ?? fail(request, reply, 404, 'There is no such quote.'));
  app.post(
    '/api/quotes',
    {
      schema: {
        body: {
          type: 'object',
          additionalProperties: false,
          required: ['text', 'author'],
          properties: { text: words(1000), author: words(200) },
        },
        response: { 201: quoteSchema },
      },
    },
    async (request, reply) => {
      const { text, author } = request.body;
      const { rows } = await database.write(ADD, [text.trim(), author.trim(), randomUUID()]);
      return reply.code(201).header('location', `/api/quotes/${rows[0].id}`).send(rows[0]);
    },
  );

  app.get('/healthz', async () => ({ status: 'ok' }));
  app.get('/readyz', async (request, reply) => {
    if (await ready()) return { status: 'ready' };
    return fail(request, reply, 503, state.stopping ? 'Stopping.' : 'The database or its schema is not there yet.');
  });
  app.get('/metrics', async (request, reply) => reply.type(registry.contentType).send(await registry.metrics()));

  return app;
}
