import type { Job, Problem, Spec } from "../api/types";
import { shortSpec } from "../recipes";

export interface Remedy {
  words: string;
  spec: Spec;
}

/** Budgets that a request names by themselves, as failures name them. */
const BUDGETS: Record<string, string> = {
  size: "bytes",
  effective_bits: "bits a weight",
  bops: "bit operations",
  peak_memory: "bytes of activations",
  latency: "ms",
};
/** The service writes figures with some digits: the budget is a little more than it says. */
const ROUNDING = 1.0001;

/** The failed job's request with the failure's remedy applied; null where people must decide. */
export function remedySpec(job: Job): Remedy | null {
  return job.error === null || job.kind !== "quantize" ? null : remedyOf(job.error, shortSpec(job.spec) as Spec);
}

/** A request in its short form with the remedy of what is wrong with it applied; null where people must decide. */
export function remedyOf(problem: Problem, short: Spec): Remedy | null {
  const where = (problem.where ?? "").replace(/^spec\.(budget\.)?/, "");
  if (problem.code === "infeasible_budget" && where in BUDGETS) {
    const written = /at least ([\d,.]*\d(?:e[+-]?\d+)?)/.exec(problem.remedy ?? "")?.[1];
    if (written) {
      const least = Number(written.replaceAll(",", ""));
      const wanted = Number.isInteger(least) ? least : Number((least * ROUNDING).toPrecision(6));
      return { words: `Try again with ${written} ${BUDGETS[where]}`, spec: { ...short, [where]: wanted } };
    }
  }
  if (problem.code === "already_quantized") {
    return { words: "Try again and keep the quantized parts", spec: { ...short, quantized_parts: "keep" } };
  }
  if (problem.code === "non_finite" && where) {
    const rules = [...(short.rules ?? []), { match: where, exclude: true }];
    return { words: `Try again with ${where} in float`, spec: { ...short, rules } };
  }
  if (problem.retryable) return { words: "Try again", spec: short };
  return null;
}
