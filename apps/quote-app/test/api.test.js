import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { startPostgres } from './postgres.js';
import { startApp } from './process.js';

let postgres;
let app;
before(async () => {
  postgres = await startPostgres();
  app = await startApp(postgres.env);
  await app.ready();
});
after(async () => {
  await app?.stop();
  postgres?.end();
});

test('the page shows a quote, escaped, without script', async () => {
  const added = await (await app.post({ text: '<script>alert(1)</script>', author: '"A" & <b>' })).json();
  const response = await app.get(`/quotes/${added.id}`);
  const page = await response.text();
  assert.equal(response.status, 200);
  assert.match(response.headers.get('content-security-policy'), /default-src 'none'/);
  assert.ok(!page.includes('<script'));
  assert.ok(page.includes('&lt;script&gt;alert(1)&lt;/script&gt;') && page.includes('&quot;A&quot; &amp; &lt;b&gt;'));
  assert.match(await (await app.get('/')).text(), /<blockquote>/);
  assert.equal((await app.get('/assets/style.css')).headers.get('content-type'), 'text/css; charset=utf-8');
});

test('an added quote is found by its location', async () => {
  const response = await app.post({ text: '  Écrire, c’est tenir. ', author: 'X' });
  assert.equal(response.status, 201);
  const found = await (await app.get(response.headers.get('location'))).json();
  assert.equal(found.text, 'Écrire, c’est tenir.');
  assert.match(found.created_at, /^\d{4}-\d\d-\d\dT/);
});

test('pages of the list are newest first, complete and without overlap', async () => {
  for (let i = 0; i < 5; i++) await app.post({ text: `page ${i}`, author: 'pager' });
  const ids = [];
  let next;
  do {
    const answer = await (await app.get(`/api/quotes?limit=3${next ? `&before=${next}` : ''}`)).json();
    ids.push(...answer.quotes.map((quote) => Number(quote.id)));
    next = answer.next;
  } while (next);
  assert.deepEqual(ids, [...new Set(ids)].sort((a, b) => b - a));
  assert.equal(String(ids.length), postgres.sql('SELECT count(*) FROM quotes'));
});

test('a drawn quote is one of the list', async () => {
  const drawn = await (await app.get('/api/quotes/random')).json();
  assert.deepEqual(await (await app.get(`/api/quotes/${drawn.id}`)).json(), drawn);
});

for (const [name, body, status] of [
  ['nothing', {}, 400],
  ['an empty text', { text: '', author: 'x' }, 400],
  ['blanks only', { text: ' \n ', author: 'x' }, 400],
  ['a text too long', { text: 'x'.repeat(1001), author: 'x' }, 400],
  ['an author too long', { text: 'x', author: 'x'.repeat(201) }, 400],
  ['an unknown field', { text: 'x', author: 'x', id: 1 }, 400],
  ['a zero byte', { text: 'a\u0000b', author: 'x' }, 400],
  ['no JSON', '{', 400],
  ['a body too large', { text: 'x', author: 'x', more: 'x'.repeat(17000) }, 413],
]) {
  test(`refused: ${name}`, async () => {
    const before = postgres.sql('SELECT count(*) FROM quotes');
    const response = await app.post(body);
    const problem = await response.json();
    assert.equal(response.status, status);
    assert.equal(response.headers.get('content-type'), 'application/problem+json');
    assert.equal(problem.status, status);
    assert.ok(problem.detail && problem.requestId);
    assert.equal(postgres.sql('SELECT count(*) FROM quotes'), before);
  });
}

test('refused: another media type, bad ids, bad pages, unknown addresses', async () => {
  assert.equal((await app.post('text=x', 'application/x-www-form-urlencoded')).status, 415);
  for (const path of ['/api/quotes/0', '/api/quotes/x', '/api/quotes/99999999999999999999', '/api/quotes?limit=0', '/api/quotes?limit=101', '/api/quotes?offset=1']) {
    assert.equal((await app.get(path)).status, 400, path);
  }
  for (const path of ['/api/quotes/999999', '/quotes/999999', '/nothing', '/api/nothing']) assert.equal((await app.get(path)).status, 404, path);
});

test('metrics count by route, not by path', async () => {
  await app.get('/api/quotes/424242');
  await app.get('/no/such/path');
  const text = await (await app.get('/metrics')).text();
  assert.match(text, /http_requests_total\{method="GET",route="\/api\/quotes\/:id",status="404"\} \d+/);
  assert.match(text, /http_request_duration_seconds_bucket\{le="0.5",method="GET",route="\/"/);
  assert.match(text, /quote_app_errors_total\{kind="database"\} 0/);
  assert.match(text, /^quote_app_healthy 1$/m);
  assert.ok(!text.includes('424242') && !text.includes('/no/such'));
});

test('logs are JSON with request ids, and hold no secret', async () => {
  const response = await app.get('/api/quotes', { headers: { 'x-request-id': 'from-outside-1' } });
  assert.equal(response.headers.get('x-request-id'), 'from-outside-1');
  const forged = await app.get('/api/quotes', { headers: { 'x-request-id': 'a b' } });
  assert.notEqual(forged.headers.get('x-request-id'), 'a b');
  await new Promise((resolve) => setTimeout(resolve, 100));
  const lines = app.output.trim().split('\n').map((line) => JSON.parse(line));
  assert.ok(lines.some((line) => line.reqId === 'from-outside-1' && line.status === 200));
  assert.ok(!app.output.includes(postgres.env.PGPASSWORD));
});
