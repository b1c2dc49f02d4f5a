import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { brotliDecompressSync, gunzipSync } from "node:zlib";

const dist = (name: string) => readFileSync(`dist/${name}`);

test("every script has its compressed forms beside it, and nothing else lies there", () => {
  const scripts = readdirSync("dist").filter((name) => name.endsWith(".js"));
  assert.ok(scripts.includes("f.js"));
  for (const script of scripts) {
    assert.ok(brotliDecompressSync(dist(`${script}.br`)).equals(dist(script)), script);
    assert.ok(gunzipSync(dist(`${script}.gz`)).equals(dist(script)), script);
  }
  assert.deepEqual(readdirSync("dist").sort(), scripts.flatMap((script) => [script, `${script}.br`, `${script}.gz`]).sort());
});
