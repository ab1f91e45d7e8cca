import type { Spec } from "./api/types";

const QUIET = new Set(["version"]);

/** What of a request differs from the service's defaults, as the short form that every door takes. */
export function shortSpec(spec: Spec, bytes?: number): Record<string, unknown> {
  const budget = { ...(spec.budget ?? {}) } as Record<string, unknown>;
  if (bytes !== undefined) budget["size"] = bytes;
  const short: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(budget)) if (value !== null) short[name] = bandText(value);
  if (spec.rules?.length) short["rules"] = spec.rules.map(lean);
  for (const [name, value] of Object.entries(spec)) {
    if (QUIET.has(name) || ["budget", "rules"].includes(name) || isDefault(name, value)) continue;
    short[name] = value;
  }
  return short;
}

/** An accuracy band as people write it: the service stores it taken apart. */
function bandText(value: unknown): unknown {
  if (typeof value !== "object" || value === null || !("metric" in value)) return value;
  const { metric, limit } = value as { metric: string; limit: number };
  if (metric === "drop") return `${Number((100 * limit).toPrecision(6))}%`;
  return `${metric}${metric === "loss" ? "<=" : ">="}${limit}`;
}

let defaults: Record<string, unknown> = {};

/** Take over what the service does where a request says nothing, from its OpenAPI document. */
export function learnDefaults(document: unknown): void {
  const schemas = (document as { components?: { schemas?: Record<string, { properties?: object }> } }).components?.schemas;
  const schema = schemas?.["QuantizeSpec-Input"] ?? schemas?.["QuantizeSpec"];
  const properties = Object.entries((schema?.properties ?? {}) as Record<string, { default?: unknown }>);
  defaults = Object.fromEntries(properties.map(([name, property]) => [name, property.default]));
}

function isDefault(name: string, value: unknown): boolean {
  if (value === null || (Array.isArray(value) && value.length === 0)) return true;
  return name in defaults && JSON.stringify(defaults[name]) === JSON.stringify(value);
}

function lean(rule: object): object {
  return Object.fromEntries(Object.entries(rule).filter(([, value]) => value !== null && value !== false));
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Flags of the command line for a short request; null where a field has no flag that is known here. */
function flags(short: Record<string, unknown>): string[] | null {
  const found: string[] = [];
  for (const [name, value] of Object.entries(short)) {
    if (name === "weight_bits") found.push(`--bits ${(value as number[]).map((b) => (b === 32 ? "float" : b)).join(",")}`);
    else if (name === "rules") {
      for (const rule of value as { match: string; pin?: number; exclude?: boolean }[]) {
        if (rule.pin != null) found.push(`--pin ${quoted(`${rule.match}=${rule.pin === 32 ? "float" : rule.pin}`)}`);
        else if (rule.exclude) found.push(`--exclude ${quoted(rule.match)}`);
        else return null;
      }
    } else if (typeof value === "object") return null;
    else found.push(`--${name.replaceAll("_", "-")} ${typeof value === "string" ? quoted(value) : String(value)}`);
  }
  return found;
}

/** The same request as curl, as Python and as a command line. */
export function recipes(
  spec: Spec,
  files: { model: string; data: string; fromJob?: string },
  address: string,
  bytes?: number,
): Record<string, string> {
  const short = shortSpec(spec, bytes);
  const json = JSON.stringify(short);
  const form = files.fromJob
    ? `-F from_job=${files.fromJob}`
    : `-F model=@${quoted(files.model)} -F data=@${quoted(files.data)}`;
  const fields = Object.entries(short).map(([name, value]) => `${name}=${python(value)}`);
  const call = files.fromJob
    ? `client.job("${files.fromJob}").quantize(${fields.join(", ")})`
    : `client.quantize(${[python(files.model), python(files.data), ...fields].join(", ")})`;
  const command = flags(short);
  const texts: Record<string, string> = {
    curl: `curl ${form} \\\n  -F spec=${quoted(json)} ${address}quantize`,
    Python: [
      "import bitwright",
      "",
      `client = bitwright.Client(${python(address.replace(/\/$/, ""))})`,
      `job = ${call}`,
      "job.wait()",
      'job.download("out")',
    ].join("\n"),
  };
  if (command) {
    texts["Command line"] = [
      `bitwright quantize ${quoted(files.model)} --data ${quoted(files.data)}`,
      ...command,
      "--out out",
    ].join(" \\\n  ");
  }
  return texts;
}

function python(value: unknown): string {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value as object).map(([name, entry]) => `${JSON.stringify(name)}: ${python(entry)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
