import { expect, it } from 'vitest';
import type { Site } from '../api';
import type { Grants } from './api';
import { grantsSaid, withGrant } from './grants';

const SITES = [{ key: 'shop', name: 'Lamps & Chairs' }] as Site[];

it.each<[Grants, string[]]>([
  [{ '*': 'owner', shop: 'viewer' }, ['owns everything']],
  [{ '*': 'viewer', shop: 'owner' }, ['watches every site', 'owns Lamps & Chairs']],
  [{ shop: 'viewer', gone: 'owner' }, ['watches Lamps & Chairs', 'owns gone']],
  [{}, ['nothing']],
])('%j', (grants, said) => expect(grantsSaid(grants, SITES)).toEqual(said));

it('what every site grants already is not kept for one', () => {
  expect(withGrant({ shop: 'viewer', blog: 'owner' }, '*', 'viewer')).toEqual({ blog: 'owner', '*': 'viewer' });
  expect(withGrant({ shop: 'viewer', blog: 'owner' }, '*', 'owner')).toEqual({ '*': 'owner' });
  expect(withGrant({ shop: 'viewer' }, 'shop', 'none')).toEqual({});
  expect(withGrant({ '*': 'viewer' }, 'shop', 'owner')).toEqual({ '*': 'viewer', shop: 'owner' });
});
