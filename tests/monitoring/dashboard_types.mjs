// Does a dashboard fit the types that Grafana publishes? dashboard_types.mjs NODE_MODULES DASHBOARD.json SCRATCH_DIR. Prints
// what does not fit, with the line of the JSON; exit 1 if anything.
//
// The JSON becomes a TypeScript literal, so that unknown fields are errors too. Panels are checked by their kind: the options
// and the custom field settings of each have types of their own.
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";

const [modules, file, scratch] = process.argv.slice(2);
const ts = createRequire(import.meta.url)(`${modules}/typescript`);
const head = `import type * as grafana from "@grafana/schema";
import type * as raw from "@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen";
import type { Options as TimeseriesOptions, FieldConfig as TimeseriesCustom } from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type { Options as TimelineOptions, FieldConfig as TimelineCustom } from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
/* JSON has the text of an enum, not the enum. */
type Plain<T> = T extends string ? \`\${T}\` : T extends number | boolean | null | undefined ? T
	: T extends (infer U)[] ? Plain<U>[] : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Query = { refId: string; datasource: { type: "prometheus"; uid: "\${datasource}" }; expr: string; legendFormat: string;
	range: boolean; instant: boolean; editorMode: "code" };
type Of<Kind, Options, Custom> = Omit<Plain<raw.Panel>, "type" | "options" | "targets" | "fieldConfig" | "title" | "description" | "gridPos"> & {
	type: Kind; title: string; description: string; gridPos: Plain<raw.GridPos>; options: Plain<Options>; targets: Query[];
	fieldConfig: { defaults: Omit<Plain<raw.FieldConfig>, "custom"> & { custom?: Plain<Custom> }; overrides: [] } };
type Panel = Of<"timeseries", TimeseriesOptions, TimeseriesCustom> | Of<"stat", StatOptions, never>
	| Of<"state-timeline", TimelineOptions, TimelineCustom> | (Plain<raw.RowPanel> & { type: "row" });
type Dashboard = Omit<Plain<raw.Dashboard>, "panels"> & { panels: Panel[] };
export const dashboard: Dashboard =
`;
const source = `${scratch}/dashboard.ts`;
writeFileSync(source, head + readFileSync(file, "utf8") + ";\n");
const program = ts.createProgram([source], {
	strict: true, noEmit: true, skipLibCheck: true, target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, types: [],
	moduleResolution: ts.ModuleResolutionKind.Bundler, paths: {
		"@grafana/schema": [`${modules}/@grafana/schema/dist/types/index.d.ts`],
		"@grafana/schema/dist/esm/raw/composable/timeseries/*": [`${modules}/@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/types.gen.d.ts`],
		"@grafana/schema/dist/esm/raw/composable/stat/*": [`${modules}/@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/types.gen.d.ts`],
		"@grafana/schema/dist/esm/raw/composable/statetimeline/*": [`${modules}/@grafana/schema/dist/types/raw/composable/statetimeline/panelcfg/x/types.gen.d.ts`],
		"@grafana/schema/dist/esm/raw/dashboard/*": [`${modules}/@grafana/schema/dist/types/raw/dashboard/x/types.gen.d.ts`],
	},
});
const found = ts.getPreEmitDiagnostics(program);
const before = head.split("\n").length - 1;
for (const d of found) {
	const line = d.file ? d.file.getLineAndCharacterOfPosition(d.start).line + 1 - (d.file.fileName === source ? before : 0) : 0;
	console.log(`${d.file?.fileName === source ? file : d.file?.fileName ?? ""}:${line}: ${ts.flattenDiagnosticMessageText(d.messageText, "\n")}`);
}
process.exit(found.length ? 1 : 0);
