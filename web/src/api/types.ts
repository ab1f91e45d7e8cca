// The documents of the service, as far as the page reads them; /openapi.json has them whole.

export type JobState =
  | "queued" | "validating" | "analyzing" | "solving" | "quantizing" | "verifying"
  | "succeeded" | "failed" | "canceled" | "expired";

export interface Problem {
  code: string;
  message: string;
  remedy: string | null;
  where?: string | null;
  layer?: string | null;
  request_id?: string | null;
  /** Whether sending the same again can help. */
  retryable?: boolean;
}

export interface Rule {
  match: string;
  pin?: number | null;
  exclude?: boolean;
  min_bits?: number | null;
  max_bits?: number | null;
  activation_bits?: number | null;
}

export interface Spec {
  budget?: Record<string, unknown>;
  weight_bits?: number[];
  rules?: Rule[];
  [field: string]: unknown;
}

export interface Summary {
  [figure: string]: unknown;
}

export interface Job {
  id: string;
  kind: "quantize" | "analyze";
  state: JobState;
  stage: string | null;
  stage_progress: number;
  progress: number;
  message: string;
  cancel_requested: boolean;
  attempt: number;
  model: string;
  data: string;
  spec: Spec;
  error: Problem | null;
  summary: Summary | null;
  created: string;
  started: string | null;
  finished: string | null;
  owner: string;
  tags: string[];
  links: Record<string, string | null>;
}

export interface JobPage {
  jobs: Job[];
  total: number;
  limit: number;
  offset: number;
}

export interface Upload {
  id: string;
  bytes: number;
  complete: boolean;
  sha256: string | null;
  expires: string | null;
}

export interface UploadPage {
  uploads: Upload[];
  total: number;
}

export interface FrontPoint {
  bytes: number;
  predicted_loss: number;
  bits: number[];
}

export interface Front {
  layers: string[];
  points: FrontPoint[];
}

export interface LayerSensitivity {
  name: string;
  weight: string;
  parameters: number;
  trace: number | null;
  trace_stderr: number | null;
  sensitivity: Record<string, number> | null;
  sensitivity_stderr: Record<string, number> | null;
}

export interface Sensitivity {
  method: string;
  loss: string;
  samples: number;
  layers: LayerSensitivity[];
}

export interface LayerReport {
  name: string;
  op: string;
  parameters: number;
  weight_bits: number;
  narrow_bits?: number | null;
  narrow_share?: number;
  trellis?: boolean;
  activation_bits: number;
  form: string;
  kernel: string;
  bytes: number;
  sensitivity: number | null;
  sqnr_db?: number | null;
  own_sqnr_db?: number | null;
  reason: string;
}

export interface Trial {
  name: string;
  predicted_loss: number;
  measured_loss: number;
  stderr: number;
  bytes: number;
  chosen: boolean;
}

export interface Report {
  model: {
    name: string;
    float_bytes: number;
    quantized_bytes: number;
    budget_bytes: number | null;
    ratio: number;
    parameters: number;
  };
  loss: string;
  plan: Plan;
  layers: LayerReport[];
  metrics: {
    name: string | null;
    float: number | null;
    quantized: number | null;
    samples: number;
    sqnr_db: number | null;
    top1_agreement: number | null;
    mean_cosine: number | null;
    interval?: [number, number] | null;
    change_interval?: [number, number] | null;
  };
  latency_ms: {
    float: number;
    quantized: number;
    float_spread: number;
    quantized_spread: number;
    speedup: number;
    batch: number;
    threads: number;
    runs: number;
  };
  trials: Trial[];
  warnings: string[];
}

export interface PlanLayer {
  name: string;
  bits: number;
  reason: string;
}

export interface Plan {
  layers: PlanLayer[];
  predicted_loss: number;
  predicted_bytes: number;
  budget_bytes: number | null;
}

export interface PreflightLayer {
  name: string;
  op: string;
  weight: string;
  shape: number[];
  parameters: number;
  macs: number | null;
}

export interface Preflight {
  model?: string;
  layers: PreflightLayer[];
  [field: string]: unknown;
}

export interface SpectrumDensity {
  name: string;
  nodes?: number[];
  grid?: number[];
  density?: number[];
  [field: string]: unknown;
}

export const RUNNING: readonly JobState[] = ["validating", "analyzing", "solving", "quantizing", "verifying"];
export const ENDED: readonly JobState[] = ["succeeded", "failed", "canceled", "expired"];

export function hasEnded(job: Pick<Job, "state">): boolean {
  return ENDED.includes(job.state);
}
