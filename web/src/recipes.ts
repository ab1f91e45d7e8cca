import type { Rule, Spec } from "./api/types";

const QUIET = new Set(["version"]);
/** Where the copied text takes the latency table from: it is too long to be copied. */
const TABLE_FILE = "latency.json";

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
  if (value === null || (typeof value === "object" && Object.keys(value).length === 0)) return true;
  return name in defaults && JSON.stringify(defaults[name]) === JSON.stringify(value);
}

function lean(rule: object): object {
  return Object.fromEntries(Object.entries(rule).filter(([, value]) => value !== null && value !== false));
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Fields that have a flag of their own name. */
const PLAIN = new Set([
  "size", "effective_bits", "bops", "peak_memory", "latency", "max_drop", "allocation", "activation_range", "float_islands",
  "target", "opset", "sensitivity", "effort", "rounding", "foem_beta", "weight_range", "equalize", "sparse", "granularity", "block_size",
  "weight_format", "loss", "workers", "seed", "device", "confidence",
]);
/** Fields that are a switch. */
const SWITCHES = new Set(["descent", "bias_correction", "follow", "mix_channels", "trellis"]);

/** Flags of the command line for a short request; null where it has something that no flag says. */
function flags(short: Record<string, unknown>): string[] | null {
  const found: (string | null)[] = Object.entries(short).flatMap(([name, value]) => {
    const flag = `--${name.replaceAll("_", "-")}`;
    if (PLAIN.has(name)) return [`${flag} ${typeof value === "string" ? quoted(value) : String(value)}`];
    if (SWITCHES.has(name)) return [value ? flag : `--no-${flag.slice(2)}`];
    if (name === "weight_bits") return [`--bits ${widths(value)}`];
    if (name === "activation_bits") return [`${flag} ${widths(value)}`];
    if (name === "rules") return (value as Rule[]).map(ruleFlags);
    if (name === "ties") return (value as string[][]).map((group) => `--tie ${quoted(group.join(","))}`);
    if (name === "loss_weights") return Object.entries(value as object).map(([key, weight]) => `--loss-weight ${quoted(`${key}=${weight}`)}`);
    if (name === "latency_table") return [`${flag} ${TABLE_FILE}`];
    if (name === "quantized_parts" && value === "keep") return ["--keep-quantized"];
    if (name === "symmetric" && value === false) return ["--asymmetric"];
    if (name === "spectrum" && value === true) return ["--spectrum"];
    return [null];
  });
  return found.every((flag) => flag !== null) ? found : null;
}

function ruleFlags(rule: Rule): string | null {
  const { match, ...said } = lean(rule) as Rule;
  const found = Object.entries(said).map(([key, value]) => {
    if (key === "pin") return `--pin ${quoted(`${match}=${widths(value)}`)}`;
    if (key === "exclude") return `--exclude ${quoted(match)}`;
    if (key === "activation_bits") return `--layer-activations ${quoted(`${match}=${widths(value)}`)}`;
    return null;
  });
  return found.every((flag) => flag !== null) ? found.join(" ") : null;
}

function widths(value: unknown): string {
  return (Array.isArray(value) ? value : [value]).map((width) => (width === 32 ? "float" : String(width))).join(",");
}

/** The same request as curl, as Python and as a command line. */
export function recipes(
  spec: Spec,
  files: { model: string; data: string },
  address: string,
  bytes?: number,
): Record<string, string> {
  const short = shortSpec(spec, bytes);
  const json = JSON.stringify(short);
  const form = `-F model=@${quoted(files.model)} -F data=@${quoted(files.data)}`;
  const tabled = "latency_table" in short;
  const fields = Object.entries(short).map(([name, value]) =>
    name === "latency_table" ? `latency_table=json.load(open("${TABLE_FILE}"))` : `${name}=${python(value)}`,
  );
  const call = `client.quantize(${[python(files.model), `data=${python(files.data)}`, ...fields].join(", ")})`;
  const command = flags(short);
  const texts: Record<string, string> = {
    curl: `curl ${form} \\\n  -F spec=${quoted(json)} ${address}quantize`,
    Python: [
      ...(tabled ? ["import json", ""] : []),
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
