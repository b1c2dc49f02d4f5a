// Who may do what, in words.

import type { Site } from '../api';
import type { Grants } from './api';
import { admin } from './strings';

const EVERY = '*';

/** One line for each grant; the widest first. */
export function grantsSaid(grants: Grants, sites: readonly Site[]): string[] {
  const { said } = admin.grants;
  if (grants[EVERY] === 'owner') return [said.everything];
  const named = (key: string) => sites.find((site) => site.key === key)?.name ?? key;
  const ofSites = Object.entries(grants)
    .filter(([key]) => key !== EVERY)
    .map(([key, role]) => said[role](named(key)));
  return grants[EVERY] === 'viewer' ? [said.every, ...ofSites] : ofSites.length > 0 ? ofSites : [said.nothing];
}

/** Without what is granted already by what holds for every site. */
export function withGrant(grants: Grants, scope: string, role: 'none' | 'viewer' | 'owner'): Grants {
  const rest = Object.entries(grants).filter(([key]) => key !== scope);
  const all = Object.fromEntries(role === 'none' ? rest : [...rest, [scope, role]]) as Grants;
  const every = all[EVERY];
  const isMore = ([key, granted]: [string, string]) => key === EVERY || every === undefined || (every === 'viewer' && granted === 'owner');
  return Object.fromEntries(Object.entries(all).filter(isMore)) as Grants;
}
