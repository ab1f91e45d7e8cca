import type { Rule, Spec } from "../api/types";

/** Times of the layers, as `bitwright profile` writes them; no more of it than the page reads. */
export interface LatencyTable {
  layers: { name: string; float_ms: number; integer_ms: number }[];
}

/** What the form holds; `specOf` turns it into a request. */
export interface Draft {
  budgets: { size: boolean; drop: boolean; latency: boolean };
  ratio: number;
  dropPercent: number;
  latencyMs: number;
  latencyTable: LatencyTable | null;
  widths: readonly number[];
  rules: readonly Rule[];
  rounding: string;
  descent: boolean;
  sparse: boolean;
  activationFloat: boolean;
  spectrum: boolean;
}

export const WIDTHS = [2, 3, 4, 5, 6, 8, 32] as const;

/** Ways to round, and what is said of them. */
export const ROUNDINGS: readonly (readonly [string, string])[] = [
  ["gptq", "GPTQ"],
  ["reconstruction", "reconstruction: slower, better at 2 to 4 bits"],
  ["brecq", "BRECQ: block by block, slower"],
  ["qdrop", "QDrop: block by block with rounded activations, slower"],
  ["adaround", "AdaRound: learned layer by layer"],
  ["foem", "FOEM: GPTQ with the first-order term"],
  ["nearest", "nearest: fastest"],
];

/** Whether codes of a rounding are improved one by one behind it. */
export function descends(rounding: string): boolean {
  return rounding !== "adaround" && rounding !== "nearest";
}

/** Whether a rounding finds outliers, by the errors of GPTQ. */
export function hasOutliers(rounding: string): boolean {
  return rounding !== "nearest";
}

export const EMPTY: Draft = {
  budgets: { size: true, drop: false, latency: false },
  ratio: 0.25,
  dropPercent: 0.5,
  latencyMs: 0,
  latencyTable: null,
  widths: [2, 3, 4, 5, 6, 8],
  rules: [],
  rounding: "gptq",
  descent: true,
  sparse: false,
  activationFloat: false,
  spectrum: false,
};

export function specOf(draft: Draft): Spec {
  const spec: Spec = {};
  if (draft.budgets.size) spec["size"] = draft.ratio;
  if (draft.budgets.drop) spec["max_drop"] = `${draft.dropPercent}%`;
  if (draft.budgets.latency && draft.latencyTable) {
    spec["latency"] = Number(draft.latencyMs.toPrecision(6));
    spec["latency_table"] = draft.latencyTable;
  }
  if (JSON.stringify(draft.widths) !== JSON.stringify(EMPTY.widths)) spec.weight_bits = [...draft.widths];
  if (draft.rules.length) spec.rules = [...draft.rules];
  if (draft.rounding !== EMPTY.rounding) spec["rounding"] = draft.rounding;
  if (!draft.descent && descends(draft.rounding)) spec["descent"] = false;
  if (draft.sparse && hasOutliers(draft.rounding)) spec["sparse"] = "auto";
  if (draft.activationFloat) spec["activation_bits"] = 32;
  if (draft.spectrum) spec["spectrum"] = true;
  return spec;
}

/** The form of an earlier request. What the form cannot show is not taken over, and the copied text says what is asked. */
export function draftFrom(spec: Spec): Draft {
  const budget = spec.budget ?? {};
  const size = typeof budget["size"] === "number" && budget["size"] <= 1 ? budget["size"] : null;
  const band = budget["max_drop"] as { metric?: string; limit?: number } | null | undefined;
  const drop = band?.metric === "drop" ? (band.limit ?? null) : null;
  const latency = typeof budget["latency"] === "number" ? budget["latency"] : null;
  return {
    ...EMPTY,
    budgets: { size: size !== null || (drop === null && latency === null), drop: drop !== null, latency: latency !== null },
    ratio: size ?? EMPTY.ratio,
    dropPercent: drop === null ? EMPTY.dropPercent : Number((100 * drop).toPrecision(6)),
    latencyMs: latency ?? EMPTY.latencyMs,
    latencyTable: (spec["latency_table"] as LatencyTable | null | undefined) ?? null,
    widths: spec.weight_bits ?? EMPTY.widths,
    rules: spec.rules ?? [],
    rounding: ROUNDINGS.some(([value]) => value === spec["rounding"]) ? String(spec["rounding"]) : EMPTY.rounding,
    descent: spec["descent"] !== false,
    sparse: spec["sparse"] === "auto",
    activationFloat: spec["activation_bits"] === 32,
    spectrum: spec["spectrum"] === true,
  };
}

/** Milliseconds of the layers by the table: all as fast as they get, and all in float. */
export function latencyRange(table: LatencyTable): [number, number] {
  const sum = (of: (layer: LatencyTable["layers"][number]) => number) => table.layers.reduce((all, layer) => all + of(layer), 0);
  return [sum((layer) => Math.min(layer.float_ms, layer.integer_ms)), sum((layer) => Math.max(layer.float_ms, layer.integer_ms))];
}

/** What a rule list says of one layer named exactly: a width, 0 for no say. */
export function pinOf(rules: readonly Rule[], layer: string): number {
  const rule = rules.find((entry) => entry.match === layer);
  return rule?.exclude ? 32 : (rule?.pin ?? 0);
}

/** The rules with one layer pinned, or freed by 0; its activations stay as they are, but those of a layer in float. */
export function withPin(rules: readonly Rule[], layer: string, width: number): Rule[] {
  const others = rules.filter((entry) => entry.match !== layer);
  if (width === 32) return [...others, { match: layer, exclude: true }];
  return withRule(others, layer, width, activationsOf(rules, layer));
}

/** Bits that activations of single layers can have. */
export const ACTIVATIONS = [8, 16, 32];

/** What a rule list says of the activations of one layer named exactly: 0 for no say. */
export function activationsOf(rules: readonly Rule[], layer: string): number {
  return rules.find((entry) => entry.match === layer)?.activation_bits ?? 0;
}

/** The rules with the activations of one layer settled, or freed by 0; its width stays as it is. */
export function withActivations(rules: readonly Rule[], layer: string, width: number): Rule[] {
  const others = rules.filter((entry) => entry.match !== layer);
  const pinned = pinOf(rules, layer);
  return withRule(others, layer, pinned === 32 ? 0 : pinned, width);
}

function withRule(others: Rule[], layer: string, pinned: number, activations: number): Rule[] {
  if (pinned === 0 && activations === 0) return others;
  return [...others, { match: layer, ...(pinned && { pin: pinned }), ...(activations && { activation_bits: activations }) }];
}
