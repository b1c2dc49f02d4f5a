import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

/** Puts NAME.js.br and NAME.js.gz beside every script in `dist`, for nodes to serve as they are. Those of scripts that are gone go. */
export function compress(dist) {
  const names = readdirSync(dist);
  for (const name of names) {
    const [script] = name.match(/.*\.js(?=\.(br|gz)$)/) ?? [];
    if (script && !names.includes(script)) rmSync(join(dist, name));
    if (!name.endsWith(".js")) continue;
    const bytes = readFileSync(join(dist, name));
    const params = { [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length };
    writeFileSync(join(dist, `${name}.br`), brotliCompressSync(bytes, { params }));
    writeFileSync(join(dist, `${name}.gz`), gzipSync(bytes, { level: constants.Z_BEST_COMPRESSION }));
  }
}
