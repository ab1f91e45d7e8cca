import type { Job, Spec } from "../api/types";
import { shortSpec } from "../recipes";

export interface Remedy {
  words: string;
  spec: Spec;
}

/** The request with the failure's remedy applied, where a program can apply it; null where people must decide. */
export function remedySpec(job: Job): Remedy | null {
  const error = job.error;
  if (error === null || job.kind !== "quantize") return null;
  const short = shortSpec(job.spec) as Spec;
  if (error.code === "infeasible_budget" && error.where === "size") {
    const least = /(\d[\d,]*) bytes/.exec(error.remedy ?? "")?.[1];
    if (least) return { words: `Try again with ${least} bytes`, spec: { ...short, size: Number(least.replaceAll(",", "")) } };
  }
  if (error.code === "already_quantized") {
    return { words: "Try again and keep the quantized parts", spec: { ...short, quantized_parts: "keep" } };
  }
  if (error.code === "non_finite" && error.where) {
    const rules = [...(job.spec.rules ?? []), { match: error.where, exclude: true }];
    return { words: `Try again with ${error.where} in float`, spec: { ...short, rules } };
  }
  if (error.retryable) return { words: "Try again", spec: short };
  return null;
}
