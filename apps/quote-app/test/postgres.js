// A real PostgreSQL for one test file: its own data folder, its own port, gone afterwards.
import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

function programs() {
  const base = '/usr/lib/postgresql';
  const versions = existsSync(base) ? readdirSync(base).sort((a, b) => b - a) : [];
  const found = versions.map((version) => join(base, version, 'bin')).find((bin) => existsSync(join(bin, 'initdb')));
  if (!found) throw new Error('no PostgreSQL server here: install the package postgresql');
  return found;
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** With `of`, what that returned, a standby of it. */
export async function startPostgres({ of } = {}) {
  const bin = programs();
  const port = await freePort();
  const folder = mkdtempSync(join(tmpdir(), 'quote-app-postgres-'));
  const data = join(folder, 'data');
  const asRoot = process.getuid() === 0;
  if (asRoot) {
    const id = (flag) => Number(execFileSync('id', [flag, 'postgres'], { encoding: 'utf8' }));
    chownSync(folder, id('-u'), id('-g'));
  }
  // The server refuses to run as root.
  const run = (program, ...args) => {
    const command = [join(bin, program), ...args.map(String)];
    if (asRoot) command.unshift('runuser', '-u', 'postgres', '--');
    return execFileSync(command[0], command.slice(1), { stdio: ['ignore', 'ignore', 'pipe'], cwd: '/', encoding: 'utf8' });
  };
  const log = join(folder, 'log');
  if (of) run('pg_basebackup', '--pgdata', data, '--write-recovery-conf', '--no-sync', '--checkpoint', 'fast', '-h', '127.0.0.1', '-p', of.port, '-U', 'quotes');
  else run('initdb', '--pgdata', data, '--username', 'quotes', '--auth', 'trust', '--no-sync', '--encoding', 'UTF8', '--locale', 'C.UTF-8');
  const control = (...args) => run('pg_ctl', '--pgdata', data, '--wait', '--silent', '--log', log, ...args);
  const start = () =>
    control('-o', `-c fsync=off -c listen_addresses=127.0.0.1 -c port=${port} -c unix_socket_directories=${folder}`, 'start');
  start();
  const sql = (text, database = 'quotes') =>
    execFileSync(join(bin, 'psql'), ['-h', '127.0.0.1', '-p', port, '-U', 'quotes', '-d', database, '-XAtqc', text], { encoding: 'utf8' }).trim();
  if (!of) sql('CREATE DATABASE quotes', 'postgres');
  return {
    port,
    sql,
    folder,
    env: { PGHOST: '127.0.0.1', PGPORT: String(port), PGUSER: 'quotes', PGDATABASE: 'quotes', PGPASSWORD: 'never-in-a-log' },
    start,
    halt: () => control('--mode', 'immediate', 'stop'),
    end() {
      try {
        control('--mode', 'immediate', 'stop');
      } catch {
        // It may be down already.
      }
      rmSync(folder, { recursive: true, force: true });
    },
  };
}
