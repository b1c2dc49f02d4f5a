// A request that changes something, or whose refusal has to be told at a field.

import { ApiError } from '../api';

/** What the node refuses: `{"error": reason, "detail": text, "field"?: name}`. */
export class Refusal extends ApiError {
  constructor(
    status: number,
    /** `wrong_login`, `declared`, …; empty when it was no node that answered. */
    readonly reason: string,
    detail: string,
    /** Name of the field that is wrong. */
    readonly field: string | null,
    /** Seconds to wait, where the node says so. */
    readonly retryAfter: number | null,
    /** The whole answer. */
    readonly body: Readonly<Record<string, unknown>>,
  ) {
    super(status, detail);
  }
}

export type Method = 'GET' | 'POST' | 'PUT' | 'DELETE';

/** The answer's JSON, `null` when it has none. Throws a [`Refusal`] (status 0: no answer came). */
export async function request(method: Method, path: string, body?: unknown): Promise<unknown> {
  const headers: Record<string, string> = { accept: 'application/json' };
  if (body !== undefined) headers['content-type'] = 'application/json';
  let response: Response;
  try {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    response = await fetch(path, { method, headers, ...sent, credentials: 'same-origin', cache: 'no-store' });
  } catch {
    throw new Refusal(0, 'no_connection', 'no connection to Footfall', null, null, {});
  }
  const text = await response.text().catch(() => '');
  const answer = parsed(text);
  if (response.ok) return answer;
  const fields = typeof answer === 'object' && answer !== null ? (answer as Record<string, unknown>) : {};
  const told = (name: string) => (typeof fields[name] === 'string' ? fields[name] : null);
  const wait = Number(response.headers.get('retry-after') ?? NaN);
  throw new Refusal(
    response.status,
    told('error') ?? '',
    told('detail') ?? `HTTP ${response.status}`,
    told('field'),
    Number.isFinite(wait) ? wait : null,
    fields,
  );
}

function parsed(text: string): unknown {
  try {
    return text === '' ? null : (JSON.parse(text) as unknown);
  } catch {
    return null;
  }
}
