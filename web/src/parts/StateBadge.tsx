import type { Job } from "../api/types";

const WORDS: Record<string, string> = { canceled: "canceled", succeeded: "done" };

/** The state of a job in a word and a colour. */
export function StateBadge({ state }: { state: Job["state"] }) {
  return <span class={`badge badge-${state}`}>{WORDS[state] ?? state}</span>;
}
