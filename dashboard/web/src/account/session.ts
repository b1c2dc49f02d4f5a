// Who is signed in, and the ways in and out.

import { Refusal, request } from './request';

export interface Session {
  user: string;
  /** Owns every site, those to come included: makes sites, users and keys. */
  everything: boolean;
}

export type Signed = { in: true; session: Session } | { in: false; /** Nobody has an account yet. */ setUp: boolean };

/** Whom a link of `footfall login` signs in: no user, so without a password of its own. */
export const OPERATOR = 'operator';

export async function session(): Promise<Signed> {
  try {
    const told = (await request('GET', '/api/session')) as Partial<Session> | null;
    return { in: true, session: { user: told?.user ?? OPERATOR, everything: told?.everything === true } };
  } catch (error) {
    if (error instanceof Refusal && error.status === 401) return { in: false, setUp: error.body.set_up === true };
    throw error;
  }
}

export async function signIn(name: string, password: string): Promise<void> {
  await request('POST', '/api/login', { name, password });
}

/** Makes the first owner and signs them in. */
export async function setUp(token: string, name: string, password: string): Promise<void> {
  await request('POST', '/api/set-up', { token, name, password });
}

export async function changePassword(old: string, fresh: string): Promise<void> {
  await request('POST', '/api/password', { old, new: fresh });
}
