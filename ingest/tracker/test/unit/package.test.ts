/** The npm package as it is packed, installed and imported by someone else. */

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { runInThisContext } from "node:vm";
import ts from "typescript";

type Package = typeof import("../../src/package");
let dir: string;

before(() => {
  dir = mkdtempSync(join(tmpdir(), "footfall-package-"));
  execFileSync("npm", ["pack", "--silent", "--pack-destination", dir, "./package"]);
  writeFileSync(join(dir, "package.json"), '{"private":true}');
  execFileSync("npm", ["install", "--silent", "--offline", "--no-audit", "--no-fund", join(dir, "footfall-tracker-0.1.0.tgz")], { cwd: dir });
});
after(() => rmSync(dir, { recursive: true, force: true }));

/** A page that remembers the script that was added. */
function page() {
  const added: { src?: string; dataset: Record<string, string> }[] = [];
  const document = {
    querySelector: () => added[0] ?? null,
    createElement: () => ({ dataset: {} }),
    head: { append: (script: (typeof added)[0]) => added.push(script) },
  };
  const window: Record<string, unknown> = {};
  Object.assign(globalThis, { document, window });
  return { added, window: window as { footfall?: { q?: unknown[]; given?: boolean } } };
}

for (const [form, load] of [
  ["import", (): Promise<Package> => import(pathToFileURL(join(dir, "node_modules/footfall-tracker/index.mjs")).href) as Promise<Package>],
  ["require", (): Promise<Package> => Promise.resolve(createRequire(join(dir, "x.js"))("footfall-tracker") as Package)],
  [
    "a script",
    (): Promise<Package> =>
      Promise.resolve(runInThisContext(`${readFileSync(join(dir, "node_modules/footfall-tracker/index.iife.js"), "utf8")}; footfallTracker`) as Package),
  ],
] as const)
  test(`by ${form}: adds the tag once, keeps what is tracked before the tracker is there`, async () => {
    const { init, track, consent, state } = await load();
    const { added, window } = page();
    init({ site: "shop", node: "https://stats.example/s/", modules: ["links", "vitals"], consent: true, storage: false });
    init({ site: "other", node: "https://stats.example" });
    track("signup", { props: { plan: "pro" } });
    consent(true);
    assert.deepEqual(added.map(({ src, dataset }) => [src, dataset]), [
      ["https://stats.example/s/f.js", { site: "shop", modules: "links vitals", storage: "none", consent: "" }],
    ]);
    assert.deepEqual(window.footfall?.q, [["signup", { props: { plan: "pro" } }]]);
    assert.equal(window.footfall.given, true);
    assert.equal(state(), undefined);
    page();
    assert.throws(() => init({ site: "", node: "https://stats.example" }), /init needs site/);
  });

test("its types hold for who uses it, and refuse what is wrong", () => {
  const file = join(dir, "use.ts");
  const diagnose = (text: string) => {
    writeFileSync(file, `import { init, track } from "footfall-tracker";\n${text}`);
    const program = ts.createProgram([file], { strict: true, noEmit: true, module: ts.ModuleKind.ESNext, moduleResolution: ts.ModuleResolutionKind.Bundler, target: ts.ScriptTarget.ES2022, types: [] });
    return ts.getPreEmitDiagnostics(program).map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n"));
  };
  assert.deepEqual(diagnose('init({ site: "a", node: "https://n" }); track("x", { props: { a: 1, b: true }, revenue: { amount: 1, currency: "EUR" } });'), []);
  assert.match(diagnose('init({ site: "a" });').join(), /node/);
  assert.match(diagnose('track("x", { props: { a: {} } });').join(), /not assignable/);
});
