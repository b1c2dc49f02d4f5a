// The shapes of the world's countries, drawn once as paths. In a file that is loaded when a map is shown.

import { geoCentroid, geoNaturalEarth1, geoPath } from 'd3-geo';
import { feature } from 'topojson-client';
import atlas from 'world-atlas/countries-110m.json?raw';
import { ALPHA2 } from './iso3166';

export interface Shape {
  /** ISO 3166 alpha-2; empty: it has none of its own. */
  code: string;
  path: string;
  /** Its middle on the map. */
  x: number;
  y: number;
}

export const WIDTH = 960;
export const HEIGHT = 470;

type Atlas = Parameters<typeof feature>[0] & { objects: { countries: { type: 'GeometryCollection'; geometries: [] } } };

/** Nobody lives there, and it would take a fifth of the map. */
const ANTARCTICA = 'AQ';
/** No number is given to it; the code that look-ups use. */
const KOSOVO = 'XK';
/** Far lands beyond the sea would draw the middle into it. */
const MIDDLES: Readonly<Record<string, [number, number]>> = { FR: [2.5, 46.6], US: [-98, 39.5], NO: [9, 61.5], NZ: [172, -42] };

export function shapes(): Shape[] {
  const { objects, ...rest } = JSON.parse(atlas) as Atlas;
  const all = feature({ ...rest, objects }, objects.countries);
  const drawn = all.features.map((land) => ({ land, code: codeOf(land.id, land.properties) })).filter(({ code }) => code !== ANTARCTICA);
  const features = drawn.map(({ land }) => land);
  const projection = geoNaturalEarth1().fitSize([WIDTH, HEIGHT], { type: 'FeatureCollection', features });
  const path = geoPath(projection).digits(1);
  return drawn.map(({ land, code }) => {
    const [x, y] = projection(MIDDLES[code] ?? geoCentroid(land)) ?? [0, 0];
    return { code, path: path(land) ?? '', x, y };
  });
}

function codeOf(id: string | number | undefined, properties: { name?: string } | null): string {
  if (id === undefined) return properties?.name === 'Kosovo' ? KOSOVO : '';
  return ALPHA2.get(String(id).padStart(3, '0')) ?? '';
}
