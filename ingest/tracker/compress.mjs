import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

/** Puts NAME.js.br and NAME.js.gz beside every script in `dist`, for nodes to serve as they are. Those of scripts that are gone go. */
export function compress(dist) {
  const names = readdirSync(dist);
  for (const name of names.filter((name) => /\.js\.(br|gz)$/.test(name))) rmSync(join(dist, name));
  for (const name of names.filter((name) => name.endsWith(".js"))) {
    const script = readFileSync(join(dist, name));
    const params = { [constants.BROTLI_PARAM_MODE]: constants.BROTLI_MODE_TEXT, [constants.BROTLI_PARAM_SIZE_HINT]: script.length };
    writeFileSync(join(dist, `${name}.br`), brotliCompressSync(script, { params }));
    writeFileSync(join(dist, `${name}.gz`), gzipSync(script, { level: constants.Z_BEST_COMPRESSION }));
  }
}
