/** Reads the script tag. The tracker's parts are wired here. */
const script = document.currentScript as HTMLScriptElement | null;
if (script?.dataset.site === undefined) console.error("footfall: the script tag needs data-site");
