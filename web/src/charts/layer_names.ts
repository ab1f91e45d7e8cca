export const LONGEST = 22;

/** Shorten an exporter's path such as `/layer1/layer1.0/conv1/Conv` to `layer1.0/conv1`, to stand under a bar. */
export function shortName(name: string, op: string): string {
  const parts = name.split("/").filter(Boolean);
  const last = parts.at(-1) ?? "";
  if (parts.length > 1 && last.startsWith(op) && /^(_\d+)?(_quant)?$/.test(last.slice(op.length))) parts.pop();
  const label = parts.filter((part, index) => !(parts[index + 1] ?? "").startsWith(`${part}.`)).join("/") || name;
  return label.length <= LONGEST ? label : `…${label.slice(1 - LONGEST)}`;
}
