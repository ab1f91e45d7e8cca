import type { Rule, Spec } from "../api/types";

/** What the form holds; `specOf` turns it into a request. */
export interface Draft {
  budgetKind: "size" | "drop" | "both";
  ratio: number;
  dropPercent: number;
  latencyMs: string;
  latencyTable: unknown;
  widths: readonly number[];
  rules: readonly Rule[];
  rounding: string;
  activationFloat: boolean;
}

export const WIDTHS = [2, 3, 4, 5, 6, 8, 32] as const;

export const EMPTY: Draft = {
  budgetKind: "size",
  ratio: 0.25,
  dropPercent: 0.5,
  latencyMs: "",
  latencyTable: null,
  widths: [2, 3, 4, 5, 6, 8],
  rules: [],
  rounding: "gptq",
  activationFloat: false,
};

export function specOf(draft: Draft): Spec {
  const spec: Spec = {};
  if (draft.budgetKind !== "drop") spec["size"] = draft.ratio;
  if (draft.budgetKind !== "size") spec["max_drop"] = `${draft.dropPercent}%`;
  if (draft.latencyMs !== "" && draft.latencyTable) {
    spec["latency"] = Number(draft.latencyMs);
    spec["latency_table"] = draft.latencyTable;
  }
  if (JSON.stringify(draft.widths) !== JSON.stringify(EMPTY.widths)) spec.weight_bits = [...draft.widths];
  if (draft.rules.length) spec.rules = [...draft.rules];
  if (draft.rounding !== EMPTY.rounding) spec["rounding"] = draft.rounding;
  if (draft.activationFloat) spec["activation_bits"] = 32;
  return spec;
}

/** The form of an earlier request. What the form cannot show is not taken over, and the copied text says what is asked. */
export function draftFrom(spec: Spec): Draft {
  const budget = spec.budget ?? {};
  const size = typeof budget["size"] === "number" && budget["size"] <= 1 ? budget["size"] : null;
  const band = budget["max_drop"] as { metric?: string; limit?: number } | null | undefined;
  const drop = band?.metric === "drop" ? (band.limit ?? null) : null;
  return {
    ...EMPTY,
    budgetKind: drop === null ? "size" : size === null ? "drop" : "both",
    ratio: size ?? EMPTY.ratio,
    dropPercent: drop === null ? EMPTY.dropPercent : Number((100 * drop).toPrecision(6)),
    widths: spec.weight_bits ?? EMPTY.widths,
    rules: spec.rules ?? [],
    rounding: typeof spec["rounding"] === "string" ? spec["rounding"] : EMPTY.rounding,
    activationFloat: spec["activation_bits"] === 32,
  };
}

/** What a rule list says of one layer named exactly: a width, 0 for no say. */
export function pinOf(rules: readonly Rule[], layer: string): number {
  const rule = rules.find((entry) => entry.match === layer);
  return rule?.exclude ? 32 : (rule?.pin ?? 0);
}

/** The rules with one layer pinned, or freed by 0. */
export function withPin(rules: readonly Rule[], layer: string, width: number): Rule[] {
  const others = rules.filter((entry) => entry.match !== layer);
  if (width === 0) return others;
  return [...others, width === 32 ? { match: layer, exclude: true } : { match: layer, pin: width }];
}
